"""Computes the report's tables and verdicts, and parity's, again from the archived records."""

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lockstep.archive import agree
from lockstep.archive.findings import Check
from lockstep.errors import UserError
from lockstep.parity import compare as ladder
from lockstep.report import analysis, tables
from lockstep.study import Study

RELATIVE = 1e-9
"""Between numbers: other builds of NumPy, SciPy and statsmodels round differently. Everything that
is not a number must be equal.
"""
ABSOLUTE = 1e-15
"""Between numbers of the report, some of which are differences of nearly equal ones."""


def report(study: Study) -> Check:
    """Do report.json and the tables follow from the records?"""
    folder = study.root / "report"
    said = agree.read(folder / "report.json")
    if not (folder / "report.json").is_file():
        return Check(name="report", says="there is none", open=True)
    try:
        found = analysis.analyse(study)
        computed = json.loads(json.dumps(analysis.as_json(found)))
    except Exception as error:  # whatever the records hold: verifying must say so, not end
        return Check(name="report", says="", wrong=[f"report/: cannot be computed ({error!r})"])
    wrong = [f"report/report.json: {w}" for w in differences(computed, said, absolute=ABSOLUTE)]
    exact = computed == said
    made = [t for part in found.workloads for t in part.tables.values()]
    names = set()
    for table in [*made, *found.tables.values()]:
        name = f"{table.name}.csv"
        names.add(name)
        path = folder / "tables" / name
        if not path.is_file():
            wrong.append(f"report/tables/{name}: is missing")
            continue
        content = tables.as_csv(table)
        if content != path.read_bytes():
            exact = False
            wrong += [f"report/tables/{name}: {w}" for w in _csv(content, path.read_bytes())]
    for path in sorted((folder / "tables").glob("*")):
        if path.name not in names:
            wrong.append(f"report/tables/{path.name}: no table of this report")
    wrong += _complete(study)
    how = "to the bit" if exact else f"within {RELATIVE:g}"
    count = len(said.get("verdicts", [])) if isinstance(said, dict) else 0
    return Check(
        name="report",
        says=f"{len(names)} tables, {count} verdicts computed again from the records, equal {how}",
        wrong=wrong,
    )


def _complete(study: Study) -> Iterator[str]:
    told = agree.read(study.complete_report())
    if told is None:
        return
    for name in ("index.html", "report.json"):
        path = study.root / "report" / name
        if path.is_file() and told.get(name) != agree.sha256(path):
            yield f"report/{name}: is not what complete.json has the hash of"


def parity(study: Study) -> Check:
    """Do the verdicts on parity follow from the traces?"""
    wrong, counted, judged = [], 0, 0
    for workload in study.config["workloads"]:
        said = agree.read(study.verdict(workload))
        if said is None:
            continue
        judged += 1
        passed = agree.read(study.passed(workload))
        name = f"parity/{workload}/verdict.json"
        if passed is not None and passed.get("verdict") != agree.sha256(study.verdict(workload)):
            wrong.append(f"{name}: is not what passed.json has the hash of")
        if passed is not None and not said.get("passed"):
            wrong.append(f"{name}: says that parity fails, but passed.json is there")
        traces = {variant: study.trace(workload, variant) for variant in study.traces()}
        if not all(path.is_file() for path in traces.values()):
            continue
        problems = [f"{p.name}: {why}" for p in traces.values() if (why := agree.unsafe(p))]
        if problems:
            wrong += [f"parity/{workload}/{problem}" for problem in problems]
            continue
        try:
            computed = json.loads(json.dumps(ladder.judge(workload, traces)))
        except (UserError, KeyError, ValueError, TypeError) as error:
            wrong.append(f"parity/{workload}: its traces cannot be judged ({error})")
            continue
        counted += 1
        wrong += [f"{name}: {w}" for w in differences(computed, said)]
    if not judged:
        return Check(name="parity", says="there is no verdict", open=True)
    if not counted and not wrong:
        return Check(name="parity", says="verdicts as recorded; traces are not included", open=True)
    return Check(
        name="parity",
        says=f"{counted} verdicts follow from the archived traces",
        wrong=wrong,
    )


def differences(
    computed: Any, said: Any, where: str = "", *, absolute: float = 0.0
) -> Iterator[str]:
    """Yield where two JSON values differ by more than rounding."""
    if isinstance(computed, dict) and isinstance(said, dict):
        for key in sorted({*computed, *said}):
            if key not in said or key not in computed:
                which = "is not there" if key not in said else "follows from no record"
                yield f"{where}{key} {which}"
            else:
                inner = f"{where}{key}."
                yield from differences(computed[key], said[key], inner, absolute=absolute)
    elif isinstance(computed, list) and isinstance(said, list):
        if len(computed) != len(said):
            yield f"{where.rstrip('.')} has {len(said)} entries instead of {len(computed)}"
            return
        for k, (a, b) in enumerate(zip(computed, said)):
            yield from differences(a, b, f"{where}{k}.", absolute=absolute)
    elif not same(computed, said, absolute):
        yield f"{where.rstrip('.')} says {_short(said)}, the records give {_short(computed)}"


def same(a: Any, b: Any, absolute: float) -> bool:
    """Whether two values are equal, numbers up to rounding."""
    numbers = (int, float)
    if isinstance(a, bool) or isinstance(b, bool) or not isinstance(a, numbers):
        return type(a) is type(b) and a == b
    return isinstance(b, numbers) and math.isclose(a, b, rel_tol=RELATIVE, abs_tol=absolute)


def _csv(computed: bytes, said: bytes) -> Iterator[str]:
    try:
        rows = [list(csv.reader(io.StringIO(text.decode()))) for text in (computed, said)]
    except (UnicodeDecodeError, csv.Error) as error:
        yield f"not readable ({error})"
        return
    mine, theirs = ([[_value(cell) for cell in row] for row in table] for table in rows)
    yield from differences(mine, theirs, absolute=ABSOLUTE)


def _value(cell: str) -> str | float:
    try:
        return float(cell)
    except ValueError:
        return cell


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, float) else repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def load(folder: Path) -> Study:
    """Return the study in a folder, wherever that was moved to."""
    study = Study.load(folder / "study.json")
    study.root = folder
    return study


def study_in(folder: Path, name: str) -> Study:
    """Return the study that was extracted below a folder.

    Raises:
        UserError: its config is not one that this version reads.
    """
    try:
        study = load(folder / "results" / name)
        study.data = folder / "data"
        found = study.name, len(study.runs), study.traces(), len(study.blocks)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"study.json is not the config of a study ({error!r})") from error
    if found[0] != name:
        raise UserError(f"study.json is of study {found[0]!r}, the manifest of {name!r}")
    return study
