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

from lockstep.archive import build, layout, source_check
from lockstep.archive.archive_reader import Archive
from lockstep.archive.archived_study import named_as_archived
from lockstep.archive.check_result import Check, guarded
from lockstep.parity import compare as ladder
from lockstep.report import analysis, page, picture, record_tables, tables
from lockstep.report.analysis import Analysis
from lockstep.report.picture import Picture
from lockstep.report.record_tables import Unsound
from lockstep.study import Study

RELATIVE, ABSOLUTE = 1e-9, 1e-15
"""Between numbers: other builds of NumPy and SciPy round differently, and some of the report's are
differences of nearly equal ones. Everything that is not a number must be equal.
"""

NUMBER = re.compile(r"[-+−]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")
FIGURE = re.compile(
    r'<figure class="picture[\w -]*"(?: id="figure-[\w.-]+")?>(.*?)</figure>', re.DOTALL
)
SVG = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
SHOWN = re.compile(r'\bid="([^"]*?)-figure_1"')
LABEL = re.compile(r'aria-label="[^"<>]*"')
CAPTION = re.compile(
    r"</?(figcaption|div|p|span|strong|em|small)( (class|tabindex|role|aria-label)=\"[^\"<>]*\")*>"
)


# Parity ---------------------------------------------------------------------------------------


def parity(archive: Archive, study: Study, package: Path) -> Check:
    """Do the verdicts on parity follow from the traces?

    Args:
        package: the archived code.
    """
    ours = source_check.same_code(package, ladder.__name__)
    wrong: list[str] = []
    judged, open_, untraced = [], [], []
    for workload in study.config["workloads"]:
        name = str(study.verdict(workload))
        verdict = archive.json_of(name)
        if verdict is None:
            continue
        wrong += guarded(name, _passed, archive, study, workload, verdict)
        traces = {variant: str(study.trace(workload, variant)) for variant in study.traces()}
        loaded: dict[str, Any] = {}
        for variant, trace in traces.items():
            if trace in archive.hashes:
                try:
                    loaded[variant] = record_tables.read_arrays(archive.bytes_of(trace), trace)
                except Unsound as problem:
                    wrong.append(str(problem).replace(" ", ": ", 1))
        if not all(trace in archive.hashes for trace in traces.values()):
            untraced.append(workload)
        elif not (ours or verdict.get("schema") == ladder.SCHEMA):
            # The schema alone does not decide: who forges a verdict writes that too.
            open_.append(workload)
        elif len(loaded) == len(traces):
            judged.append(workload)
            wrong += guarded(name, _judged, workload, loaded, verdict, name)
    says = f"{len(judged)} verdicts follow from the archived traces"
    if untraced:
        says += f"; traces of {', '.join(untraced)} are not included, its verdict is as recorded"
    if open_:
        says += f"; {', '.join(open_)} was judged by another version's rules, not compared"
    return Check(name="parity", says=says, wrong=wrong, skipped=not judged)


def _passed(archive: Archive, study: Study, workload: str, verdict: Any) -> Iterator[str]:
    passed, name = archive.json_of(str(study.passed(workload))), str(study.verdict(workload))
    if passed is not None and passed["verdict"] != archive.hashes[name]:
        yield f"{name}: is not what passed.json has the hash of"
    if passed is not None and not verdict["passed"]:
        yield f"{name}: says that parity fails, but passed.json is there"


def _judged(workload: str, loaded: dict[str, Any], verdict: Any, name: str) -> Iterator[str]:
    again = json.loads(json.dumps(ladder.judge_loaded(workload, loaded)))
    yield from _one_finding(name, difference(again, verdict, absolute=0.0), "the traces")


# What is made again ---------------------------------------------------------------------------


def derived(
    archive: Archive,
    study: Study,
    on_disk: Study,
    package: Path,
    *,
    records_hold: bool,
    figures: bool,
) -> Check:
    """Are report and description what records and config make them?

    Args:
        on_disk: the extracted study.
        package: the archived code.
        records_hold: else the report cannot follow from them, and is not compared.
        figures: draw them again as well.
    """
    wrong: list[str] = []
    says: list[str] = []
    if source_check.is_this_version(package, archive.about, build.__name__):
        wrong += guarded(layout.CRATE, _described, archive, study)
        says.append("README, metadata and description are what config and records make them")
    else:
        says.append("README, metadata and description were made by another version, not compared")
    report = f"{layout.RESULTS}{study.name}/report/"
    wrong += guarded(f"{report}complete.json", _complete, archive, report)
    if f"{report}report.json" not in archive.hashes:
        says.append("there is no report")
    elif not records_hold:
        says.append("the report was not compared, as the records do not hold")
    elif not source_check.is_this_version(package, archive.about, "lockstep.report.build"):
        says.append("the report was made by another version, not compared")
    else:
        said: list[str] = []
        wrong += guarded(report, _report, archive, on_disk, report, figures, said)
        says += said
    return Check(name="derived", says="; ".join(says), wrong=wrong)


def _described(archive: Archive, study: Study) -> Iterator[str]:
    sizes, hashes = {}, {}
    for name, sha256 in archive.hashes.items():
        if name not in layout.DERIVED:
            sizes[name], hashes[name] = archive.reader.sizes[name], sha256
    again = named_as_archived(study.config)
    for name, content in build.derived(again, archive.about, sizes, hashes, archive.json_of):
        if name in archive.hashes and archive.bytes_of(name) != content:
            where = _entity(content, archive.json_of(name)) if name == layout.CRATE else ""
            yield f"{name}: is not what config and records make it{where}"
        if name in archive.hashes:
            sizes[name], hashes[name] = archive.reader.sizes[name], archive.hashes[name]


def _entity(computed: bytes, written: Any) -> str:
    """Return the first entity that two descriptions do not share."""
    a, b = ({e["@id"]: e for e in graph["@graph"]} for graph in (json.loads(computed), written))
    for identifier in sorted({*a, *b}):
        if a.get(identifier) != b.get(identifier):
            keys = sorted({*a.get(identifier, {}), *b.get(identifier, {})})
            wrong = [
                k for k in keys if a.get(identifier, {}).get(k) != b.get(identifier, {}).get(k)
            ]
            return f" ({identifier}: {', '.join(wrong)})"
    return ""


def _complete(archive: Archive, report: str) -> Iterator[str]:
    told = archive.json_of(f"{report}complete.json")
    for name in ("index.html", "report.json") if told is not None else ():
        if told[name] != archive.hashes.get(report + name, told[name]):
            yield f"{report}{name}: is not what complete.json has the hash of"


def _report(
    archive: Archive, on_disk: Study, report: str, figures: bool, says: list[str]
) -> Iterator[str]:
    found = analysis.analyse(on_disk)
    computed = json.loads(json.dumps(analysis.as_json(found)))
    written = archive.json_of(f"{report}report.json")
    yield from _one_finding(f"{report}report.json", difference(computed, written), "the records")
    made = {f"{report}tables/{t.name}.csv": tables.as_csv(t) for t in found.all_tables}
    there = {name for name in archive.hashes if name.startswith(f"{report}tables/")}
    exact = computed == written
    for name in sorted({*made, *there}):
        if name not in made:
            yield f"{name}: is not a table of this report"
        elif name not in there:
            yield f"{name}: is missing"
        elif archive.bytes_of(name) != made[name]:
            exact = False
            rows = difference(_rows(made[name]), _rows(archive.bytes_of(name)))
            yield from _one_finding(name, rows, "the records")
    verdicts = len(written.get("verdicts", [])) if isinstance(written, dict) else 0
    how = "to the bit" if exact else f"within {RELATIVE:g}"
    says.append(f"{len(made)} tables and {verdicts} verdicts follow from the records, {how}")
    name = f"{report}index.html"
    if name in archive.hashes:
        html = archive.bytes_of(name).decode()
        yield from _page(name, html, page.render(found, {}), rounded=computed != written)
        yield from _shown(archive, report, html)
        says.append("the page is as the records make it, its figures are those of the report")
    if figures:
        yield from _drawn(archive, report, found)
        says.append("figures were drawn again")


def _page(name: str, written: str, computed: str, *, rounded: bool) -> Iterator[str]:
    """Yield where a page, but for its figures, is not what the records make it.

    Args:
        rounded: the report's numbers were rounded otherwise, so those of the page may be others.
    """
    sides = [_lines(FIGURE.sub("", computed)), _lines(FIGURE.sub("", written))]
    if rounded:
        sides = [[NUMBER.sub("#", line) for line in lines] for lines in sides]
    if sides[0] != sides[1]:
        pairs = itertools.zip_longest(*sides)
        first = next((b or a for a, b in pairs if a != b), "")
        yield f"{name}: is not what the records make it, from {first[:80]!r} on"


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _shown(archive: Archive, report: str, html: str) -> Iterator[str]:
    """Yield figures of a page that are no files of the report, and files that it does not show."""
    shown = set()
    for figure in FIGURE.findall(html):
        drawings = SVG.findall(figure)
        name = SHOWN.search(figure)
        file = f"{report}figures/{name[1] if name else ''}.svg"
        rest = CAPTION.sub("", SVG.sub("", figure))
        if len(drawings) != 1 or name is None or file not in archive.hashes or "<" in rest:
            what = repr(rest.strip()[:60])
            yield f"{report}index.html: shows what is no figure of the report ({what})"
            continue
        svg = archive.bytes_of(file)
        drawn = Picture(name=name[1], title="", alternative="", note="", svg=svg, png=b"")
        if _unlabelled(picture.inline(drawn)) != _unlabelled(drawings[0]):
            yield f"{report}index.html: its figure {name[1]} is not {file}"
        shown.add(name[1])
    for file in archive.hashes:
        if file.startswith(f"{report}figures/") and file[len(report) + 8 : -4] not in shown:
            yield f"{file}: the report's page does not show it"


def _unlabelled(svg: str) -> str:
    return LABEL.sub("", svg).strip()


def _drawn(archive: Archive, report: str, found: Analysis) -> Iterator[str]:
    """Yield figures that are not what this version of Matplotlib draws from the records."""
    from lockstep.report import figures  # needs Matplotlib and seaborn

    for drawing in itertools.chain(*figures.draw(found).values()):
        name = f"{report}figures/{drawing.name}.svg"
        if name in archive.hashes and archive.bytes_of(name) != drawing.svg:
            yield f"{name}: is not what is drawn from the records here"


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
    if isinstance(computed, dict) and isinstance(written, dict):
        for key in sorted({*computed, *written}):
            if key not in written or key not in computed:
                yield f"{where}{key} is {'missing' if key in computed else 'not expected'}"
            else:
                yield from difference(
                    computed[key], written[key], f"{where}{key}.", absolute=absolute
                )
    elif isinstance(computed, list) and isinstance(written, list):
        if len(computed) != len(written):
            yield f"{where.rstrip('.') or 'it'} has {len(written)} entries, not {len(computed)}"
            return
        for k, (a, b) in enumerate(zip(computed, written)):
            yield from difference(a, b, f"{where}{k}.", absolute=absolute)
    elif not _same(computed, written, absolute):
        a, b = (repr(value)[:80] for value in (computed, written))
        yield f"{where.rstrip('.')} is {b}, not {a}"


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
