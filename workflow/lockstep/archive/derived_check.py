"""Whether what was made of the records follows from them: parity's verdicts, report, description.

Each is made again and compared, if this version of Lockstep made it.
"""

import csv
import io
import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lockstep.archive import build, layout
from lockstep.archive.archive_reader import Archive
from lockstep.archive.source import same_code
from lockstep.archive.verify import Check, guarded
from lockstep.parity import compare as ladder
from lockstep.records import record_tables
from lockstep.records.load import Records
from lockstep.records.record_tables import Unsound
from lockstep.report import analysis, page, tables
from lockstep.study import Study

RELATIVE, ABSOLUTE = 1e-9, 1e-15
"""Between numbers: other builds of NumPy and SciPy round differently, and some of the report's are
differences of nearly equal ones. Everything that is not a number must be equal.
"""

NUMBER = re.compile(r"[-+−]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")


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
        verdict = archive.json_of(name)
        if verdict is None:
            continue
        traces = {variant: str(study.trace(workload, variant)) for variant in study.traces()}
        if not all(trace in archive.hashes for trace in traces.values()):
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
    report = f"{layout.RESULTS}{study.name}/report/"
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
    hashes = {n: sha256 for n, sha256 in archive.hashes.items() if n not in layout.DERIVED}
    sizes = {name: archive.reader.sizes[name] for name in hashes}
    again = layout.named_as_archived(study.config)
    for name, content in build.derived(again, archive.about, sizes, hashes, archive.json_of):
        if name not in archive.hashes:
            yield f"{name}: is missing"
            continue
        if archive.bytes_of(name) != content:
            more = ""
            if name.endswith(".json"):
                differs = difference(json.loads(content), archive.json_of(name))
                more = ": " + next(differs, "it is written otherwise")
            yield f"{name}: is not what config and records make it{more}"
        sizes[name], hashes[name] = archive.reader.sizes[name], archive.hashes[name]


def _report(
    archive: Archive, records: Records, report: str, figures: bool, says: list[str]
) -> Iterator[str]:
    found = analysis.analyse(records.study, records)
    computed = json.loads(json.dumps(analysis.as_json(found)))
    written = archive.json_of(f"{report}report.json")
    yield from _one_finding(f"{report}report.json", difference(computed, written), "the records")
    made = {f"{report}tables/{t.name}.csv": tables.as_csv(t) for t in found.all_tables}
    there = {name for name in archive.hashes if name.startswith(f"{report}tables/")}
    for name in sorted({*made} ^ there):
        yield f"{name}: is {'missing' if name in made else 'not a table of this report'}"
    changed = [name for name in sorted({*made} & there) if archive.bytes_of(name) != made[name]]
    for name in changed:
        rows = difference(_rows(made[name]), _rows(archive.bytes_of(name)))
        yield from _one_finding(name, rows, "the records")
    how = f"within {RELATIVE:g}" if changed or computed != written else "to the bit"
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
