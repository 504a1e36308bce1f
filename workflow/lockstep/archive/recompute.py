"""Computes the report's tables, verdicts and page, and parity's, again from the records."""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.archive import agree, arrays, differences, written
from lockstep.archive.findings import Check, guarded
from lockstep.parity import compare as ladder
from lockstep.parity.distances import Arrays
from lockstep.report import analysis, page, tables
from lockstep.report.analysis import Analysis
from lockstep.study import Study

Loaded = dict[str, Arrays]
"""Of a workload: the arrays of each variant's trace."""

NUMBER = re.compile(r"[-+−]?\d+(?:[.,]\d+)*(?:e[-+]?\d+)?")


@dataclass(frozen=True, kw_only=True)
class Again:
    """A report that was worked out again.

    Attributes:
        found: all that it says.
        computed: what report.json would be.
        said: what it is.
    """

    found: Analysis
    computed: Any
    said: Any


def again(study: Study) -> Again:
    """Work out a report from the archived records; raises whatever these may hold."""
    found = analysis.analyse(study)
    return Again(
        found=found,
        computed=json.loads(json.dumps(analysis.as_json(found))),
        said=agree.read(study.root / "report" / "report.json"),
    )


def report(study: Study, again: Callable[[], Again]) -> Check:
    """Do report.json and the tables follow from the records?"""
    folder = study.root / "report"
    if not (folder / "report.json").is_file():
        return Check(name="report", says="there is none", open=True)
    wrong = list(guarded("report/complete.json", _complete(study)))
    try:
        made = again()
    except Exception as error:  # whatever the records hold: verifying must say so, not end
        wrong.append(f"report/: cannot be computed ({error!r})")
        return Check(name="report", says="", wrong=wrong)
    apart = differences.between(made.computed, made.said, absolute=differences.ABSOLUTE)
    wrong += [f"report/report.json: {w}" for w in apart]
    mine = {f"{t.name}.csv": tables.as_csv(t) for t in made.found.all_tables}
    theirs = {path.name: path.read_bytes() for path in sorted((folder / "tables").glob("*"))}
    wrong += guarded("report/tables", _tables(mine, theirs))
    exact = made.computed == made.said and mine == theirs
    how = "to the bit" if exact else f"within {differences.RELATIVE:g}"
    count = len(made.said.get("verdicts", [])) if isinstance(made.said, dict) else 0
    return Check(
        name="report",
        says=f"{len(mine)} tables, {count} verdicts computed again from the records, equal {how}",
        wrong=wrong,
    )


def shown(
    study: Study, again: Callable[[], Again], manifest: Mapping[str, Any], package: Path
) -> Check:
    """Is the page, but for its figures, what the records make it?

    Args:
        package: the archived code, which wrote it.
    """
    if not study.report().is_file():
        return Check(name="page", says="there is none", open=True)
    made = again()
    mine, theirs = page.says(page.render(made.found, {})), page.says(study.report().read_text())
    says, rest = "says what the records make it say", "; its figures are held by their digests"
    if mine != theirs and made.computed != made.said:
        # The last digits that it shows may be others where the report's numbers are.
        mine, theirs = ([NUMBER.sub("#", line) for line in lines] for lines in (mine, theirs))
        says += ", but for numbers, as the report's were rounded otherwise"
    if mine == theirs:
        return Check(name="page", says=says + rest)
    if not written.alike(page.__name__, manifest, package, page.TEMPLATE, page.STYLE):
        says = "not that of this version of Lockstep; another one wrote it"
        return Check(name="page", says=says, open=True)
    first = next((b or a for a, b in itertools.zip_longest(mine, theirs) if a != b), "")
    wrong = [f"report/index.html: is not what the records make it, from {first[:80]!r} on"]
    return Check(name="page", says="", wrong=wrong)


def _tables(mine: Mapping[str, bytes], theirs: Mapping[str, bytes]) -> Iterator[str]:
    for name in sorted({*mine, *theirs}):
        if name not in theirs:
            yield f"report/tables/{name}: is missing"
        elif name not in mine:
            yield f"report/tables/{name}: no table of this report"
        elif mine[name] != theirs[name]:
            found = differences.tables(mine[name], theirs[name])
            yield from (f"report/tables/{name}: {problem}" for problem in found)


def _complete(study: Study) -> Iterator[str]:
    told = agree.read(study.complete_report())
    if told is None:
        return
    for name in ("index.html", "report.json"):
        path = study.root / "report" / name
        if path.is_file() and told.get(name) != files.sha256_file(path):
            yield f"report/{name}: is not what complete.json has the hash of"


def parity(study: Study, package: Path) -> Check:
    """Do the verdicts on parity follow from the traces?

    Args:
        package: the archived code, which made them.
    """
    verdicts = {w: agree.read(study.verdict(w)) for w in study.config["workloads"]}
    judged = {w: verdict for w, verdict in verdicts.items() if verdict is not None}
    traced = [w for w in judged if all(path.is_file() for path in _traces(study, w).values())]
    # The schema alone does not decide: who forges a verdict writes that too.
    ours = written.same_code(ladder.__name__, package)
    alike = [w for w in traced if ours or judged[w].get("schema") == ladder.SCHEMA]
    wrong: list[str] = []
    for workload in verdicts:
        below = f"parity/{workload}"
        held, unreadable = _load(study, workload)
        wrong += unreadable
        if workload in judged:
            wrong += guarded(f"{below}/passed.json", _passed(study, workload))
        if workload in alike and not unreadable:
            wrong += guarded(f"{below}: its traces", _judged(study, workload, held))
    if not judged:
        return Check(name="parity", says="there is no verdict", open=True)
    if not wrong and not traced:
        return Check(name="parity", says="verdicts as recorded; traces are not included", open=True)
    if not wrong and len(alike) < len(traced):
        says = "verdicts as recorded; another version's rules made them"
        return Check(name="parity", says=says, open=True)
    said = f"{len(alike)} verdicts follow from the archived traces"
    return Check(name="parity", says=said, wrong=wrong)


def _traces(study: Study, workload: str) -> dict[str, Path]:
    return {variant: study.trace(workload, variant) for variant in study.traces()}


def _passed(study: Study, workload: str) -> Iterator[str]:
    passed = agree.read(study.passed(workload))
    if passed is None:
        return
    name = f"parity/{workload}/verdict.json"
    if passed["verdict"] != files.sha256_file(study.verdict(workload)):
        yield f"{name}: is not what passed.json has the hash of"
    if not agree.read(study.verdict(workload)).get("passed"):
        yield f"{name}: says that parity fails, but passed.json is there"


def _load(study: Study, workload: str) -> tuple[Loaded, list[str]]:
    """Return the traces of a workload that are there, and what is wrong with those that are not
    readable.
    """
    loaded: Loaded = {}
    wrong = []
    for variant, path in _traces(study, workload).items():
        try:
            if path.is_file():
                loaded[variant] = arrays.read(path)
        except arrays.Unreadable as why:
            wrong.append(f"parity/{workload}/{path.name}: {why}")
    return loaded, wrong


def _judged(study: Study, workload: str, loaded: Loaded) -> Iterator[str]:
    computed = json.loads(json.dumps(ladder.judge_loaded(workload, loaded)))
    said = agree.read(study.verdict(workload))
    for w in differences.between(computed, said):
        yield f"parity/{workload}/verdict.json: {w}"
