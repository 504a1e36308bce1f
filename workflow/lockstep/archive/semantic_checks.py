"""What the files of an archive say: do records agree, and does what was made of them follow?

What makes a record sound is decided by `lockstep.records`, as for the report: a run that the report
would leave out is a finding. Parity's verdicts, report and description are made again and compared,
if this version of Lockstep made them.
"""

import csv
import io
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lockstep.archive import build, layout
from lockstep.archive.archive_reader import Archive
from lockstep.archive.source import same_code
from lockstep.archive.verify import Check, guarded
from lockstep.parity import compare as ladder
from lockstep.records import record_schema, record_tables, record_validation
from lockstep.records.load import EXCLUDED, Record, Records
from lockstep.records.record_tables import Unsound
from lockstep.report import analysis, page, tables
from lockstep.study import Study
from lockstep.study.run import Run

RELATIVE, ABSOLUTE = 1e-9, 1e-15
"""Between numbers: other builds of NumPy and SciPy round differently, and some of the report's are
differences of nearly equal ones. Everything that is not a number must be equal.
"""

NUMBER = re.compile(r"[-+−]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")


# Records --------------------------------------------------------------------------------------


def records(archive: Archive, study: Study, extracted: Records) -> Check:
    """Is everything there that the archive says is there, and do the records agree?

    Args:
        study: whose paths are names in the archive.
        extracted: the records of the same study, read from extracted files.
    """
    wrong = [*guarded(layout.ABOUT, _whole, archive, study)]
    wrong += [f"{name}: is not what {by} has the hash of" for hashes, by in _bound(archive, study)
              for name, sha256 in hashes.items()
              if archive.hashes.get(name, sha256) != sha256]  # fmt: skip
    wrong += [f"{study.root}/{where}: {why}" for where, why in extracted.excluded
              if where.startswith("blocks/")]  # fmt: skip
    described = layout.manifests(archive.hashes, archive.json_of)
    manifests = {str(told["identity"]): told for told in described.values()}
    for run, record in zip(study.runs, extracted.runs, strict=True):
        found = guarded("summary.json", _run, archive, study, run, record, manifests)
        wrong += [f"{study.root}/{record.folder}/{problem}" for problem in found]
    present = sum(f"{study.run_folder(run)}/summary.json" in archive.hashes for run in study.runs)
    says = f"{present} of {len(study.runs)} runs agree with their blocks, datasets and images"
    if missing := archive.about["missing"]:
        says = f"THE STUDY IS NOT COMPLETE, {len(missing)} files are missing, as it says; {says}"
    return Check(name="records", says=says, wrong=wrong)


def _whole(archive: Archive, study: Study) -> Iterator[str]:
    """Yield manifests that describe nothing, and where ``archive.json`` and the config are not what
    the files say.
    """
    for name in archive.hashes:
        if name.startswith(layout.DATA) and name.endswith("/manifest.json"):
            dataset = name.startswith(f"{layout.DATA}datasets/")
            schema = record_schema.DATASET if dataset else record_schema.IMAGE
            if (field := record_schema.unsound(archive.json_of(name), schema)) is not None:
                yield f"{name}: field {field!r} is missing or not of its kind"
    missing = layout.missing(study, archive.hashes, archive.json_of)
    for name in sorted({*missing} ^ {*archive.about["missing"]}):
        how = "missing" if name in missing else "there"
        yield f"{name}: is {how}, which {layout.ABOUT} does not say"
    # In its order, too: parity is measured against the first variant.
    again = json.dumps(layout.reproducible(study.config))
    if json.dumps(archive.json_of(layout.STUDY)) != again:
        yield f"{layout.STUDY}: is not the config of the study as it was run"


def _bound(archive: Archive, study: Study) -> Iterator[tuple[Mapping[str, str], str]]:
    """Yield the sha256 that records have of files, by name, and which record it is.

    The files need not be in the archive.
    """
    yield layout.artefacts(study, archive.json_of), "the deployment's record"
    for folder, told in layout.manifests(archive.hashes, archive.json_of).items():
        _, files = layout.contents(folder, told)
        yield {f"{folder}/{file}": sha256 for file, sha256 in files.items()}, "its manifest"
    for name in map(study.manifest, study.blocks):
        block = archive.json_of(str(name))
        if record_schema.unsound(block, record_schema.BLOCK) is None:  # else `load` says why
            arrays = itertools.product(block["runs"].items(), ("steps.npz", layout.FINAL))
            yield {f"{study.root}/runs/{run}/{file}": entry["sha256"].get(file)
                   for (run, entry), file in arrays}, "its block"  # fmt: skip


def _run(
    archive: Archive, study: Study, run: Run, record: Record, manifests: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what is wrong with a run, each beginning with the name of its file."""
    own = {name: f"{study.run_folder(run)}/{name}" for name in layout.RECORDS}
    whole = archive.hashes.keys() >= {*own.values()}  # `_whole` says what is missing
    if record.status == EXCLUDED and whole:
        yield str(record.reason)
    summary = record.summary
    if not summary:
        return
    yield from record_validation.identity_problems(summary, study.run_config(run))
    if whole:
        try:
            columns = [record_tables.read_columns(archive.bytes_of(own[name]), name)
                       for name in record_tables.TABLES]  # fmt: skip
            steps = record_tables.read_steps(archive.bytes_of(own["steps.npz"]), summary)
            yield from record_tables.from_steps(steps, summary, *columns)
        except Unsound as problem:
            yield str(problem)
    contract = summary["contract"]
    determined, image = contract["determined_by"], contract["host"].get("image")
    weights = str(study.weights(run.workload, run.seed))
    if archive.hashes.get(weights, determined["weights"]) != determined["weights"]:
        yield f"summary.json: was trained from other weights than {weights}"
    dataset = manifests.get(summary["dataset"]["identity"])
    if dataset and dataset["content"] != summary["dataset"]["content"]:
        yield "summary.json: dataset.content is not that of data/datasets"
    built = manifests.get(image["identity"]) if image else None
    if built and built["sif"]["sha256"] != image["sif_sha256"]:
        yield "summary.json: its image's sha256 is not that of data/images"


# Parity ---------------------------------------------------------------------------------------


def parity(archive: Archive, study: Study, package: Path) -> Check:
    """Do the verdicts on parity follow from the traces?

    Args:
        package: the archived code, extracted.
    """
    ours = same_code(package, ladder.__name__)
    wrong: list[str] = []
    judged, other, untraced = [], [], []
    for workload in study.config["workloads"]:
        name = str(study.verdict(workload))
        if name not in archive.hashes:
            continue
        verdict = archive.json_of(name)
        traces = {variant: str(study.trace(workload, variant)) for variant in study.traces()}
        if not isinstance(verdict, dict):
            wrong.append(f"{name}: is no verdict")
        elif not all(trace in archive.hashes for trace in traces.values()):
            untraced.append(workload)
        elif ours or verdict.get("schema") == ladder.SCHEMA:
            judged.append(workload)
            wrong += guarded(name, _judged, archive, workload, traces, verdict, name)
        else:  # the schema alone does not decide: who forges a verdict writes that too
            other.append(workload)
    says = f"{len(judged)} verdicts follow from the archived traces"
    if untraced:
        says += f"; traces of {', '.join(untraced)} are not included, its verdict is as recorded"
    if other:
        says += f"; {', '.join(other)} was judged by another version's rules, not compared"
    return Check(name="parity", says=says, wrong=wrong, skipped=not judged)


def _judged(
    archive: Archive, workload: str, traces: dict[str, str], verdict: Any, name: str
) -> Iterator[str]:
    try:
        loaded = {v: record_tables.read_arrays(archive.bytes_of(trace), trace)
                  for v, trace in traces.items()}  # fmt: skip
    except Unsound as problem:
        yield str(problem).replace(" ", ": ", 1)
        return
    again = json.loads(json.dumps(ladder.judge_loaded(workload, loaded)))
    for variant, comparison in again["comparisons"].items():
        # Why two models differ is found by calling them: it is as recorded.
        written = verdict["comparisons"].get(variant, {})
        comparison |= {"cause": written["cause"]} if "cause" in written else {}
    yield from _one_finding(name, difference(again, verdict, absolute=0.0), "the traces")


# What is made again ---------------------------------------------------------------------------


def derived(
    archive: Archive, study: Study, package: Path, records: Records | None, *, figures: bool
) -> Check:
    """Are report and description what records and config make them?

    Args:
        package: the archived code, extracted.
        records: extracted; None if they do not hold: the report cannot follow from them then.
        figures: draw them again as well.
    """
    wrong: list[str] = []
    says: list[str] = []
    if same_code(package, build.__name__):
        wrong += guarded(layout.CRATE, _described, archive, study)
        says.append("README, metadata and description are what config and records make them")
    else:
        says.append("README, metadata and description were made by another version, not compared")
    report = f"{study.root}/report/"
    if f"{report}report.json" not in archive.hashes:
        says.append("there is no report")
    elif records is None:
        says.append("the report was not compared, as the records do not hold")
    elif not same_code(package, "lockstep.report.build"):
        says.append("the report was made by another version, not compared")
    else:
        wrong += guarded(report, _report, archive, records, report, figures, says)
    return Check(name="derived", says="; ".join(says), wrong=wrong)


def _described(archive: Archive, study: Study) -> Iterator[str]:
    sizes, hashes = archive.reader.sizes, archive.hashes
    for name, content in build.derived(study, archive.about, sizes, hashes, archive.json_of):
        if name not in hashes:
            yield f"{name}: is missing"
        elif archive.bytes_of(name) != content:
            more = ""
            if name.endswith(".json"):
                differs = difference(json.loads(content), archive.json_of(name))
                more = ": " + next(differs, "it is written otherwise")
            yield f"{name}: is not what config and records make it{more}"


def _report(
    archive: Archive, records: Records, report: str, figures: bool, says: list[str]
) -> Iterator[str]:
    found = analysis.analyse(records.study, records)
    computed = json.loads(json.dumps(analysis.as_json(found)))
    written = archive.json_of(f"{report}report.json")
    yield from _one_finding(f"{report}report.json", difference(computed, written), "the records")
    made = {f"{report}tables/{t.name}.csv": tables.as_csv(t) for t in found.all_tables}
    there = {name for name in archive.hashes if name.startswith(f"{report}tables/")}
    exact = computed == written
    for name in sorted({*made} | there):
        if name not in made or name not in there:
            yield f"{name}: is {'missing' if name in made else 'not a table of this report'}"
        elif (content := archive.bytes_of(name)) != made[name]:
            exact, rows = False, difference(_rows(made[name]), _rows(content))
            yield from _one_finding(name, rows, "the records")
    how = "to the bit" if exact else f"within {RELATIVE:g}"
    verdicts = len(found.comparisons)
    says.append(f"{len(made)} tables and {verdicts} verdicts follow from the records, {how}")
    if f"{report}index.html" in archive.hashes:
        html = archive.bytes_of(f"{report}index.html").decode()
        drawn = records.study.report().parent / "figures"
        again, held = page.says(page.render(found, {})), page.says(html, drawn)
        if computed != written:  # its numbers were rounded otherwise, so those of the page may be
            again, held = ([NUMBER.sub("#", line) for line in lines] for lines in (again, held))
        for line in itertools.islice(difference(again, held, "line "), 1):
            yield f"{report}index.html: is not what the records make it: {line}"
        says.append("the page is as the records make it, its figures are those of the report")
    if figures:
        from lockstep.report import figures as drawing  # needs Matplotlib and seaborn

        for picture in itertools.chain(*drawing.draw(found).values()):
            name = f"{report}figures/{picture.name}.svg"
            if name in archive.hashes and archive.bytes_of(name) != picture.svg:
                yield f"{name}: is not what is drawn from the records here"
        says.append("figures were drawn again")


# Differences ----------------------------------------------------------------------------------


def _one_finding(name: str, differences: Iterator[str], source: str) -> Iterator[str]:
    """Yield one finding for a file, however many values of it are wrong."""
    found = list(differences)
    if found:
        more = f" (and {len(found) - 1} more values)" if len(found) > 1 else ""
        yield f"{name}: does not follow from {source}: {found[0]}{more}"


def difference(
    computed: Any, written: Any, where: str = "", *, absolute: float = ABSOLUTE
) -> Iterator[str]:
    """Yield where two JSON values differ by more than rounding."""
    if isinstance(computed, list) and isinstance(written, list):
        computed, written = (dict(enumerate(value, 1)) for value in (computed, written))
    if isinstance(computed, dict) and isinstance(written, dict):
        for key in {**computed, **written}:
            if key not in written or key not in computed:
                yield f"{where}{key} is {'missing' if key in computed else 'not expected'}"
            else:
                yield from difference(
                    computed[key], written[key], f"{where}{key}.", absolute=absolute
                )
    elif not _same(computed, written, absolute):
        a, b = (repr(value)[:80] for value in (computed, written))
        yield f"{where.rstrip('.') or 'it'} is {b}, not {a}"


def _same(a: Any, b: Any, absolute: float) -> bool:
    if any(isinstance(x, bool) or not isinstance(x, (int, float)) for x in (a, b)):
        return type(a) is type(b) and bool(a == b)
    return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=absolute) or (a != a and b != b)


def _rows(content: bytes) -> list[list[str | float]]:
    return [[_value(cell) for cell in row] for row in csv.reader(io.StringIO(content.decode()))]


def _value(cell: str) -> str | float:
    try:
        return float(cell)
    except ValueError:
        return cell
