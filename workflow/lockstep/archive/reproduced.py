"""What became of running a study again: run by run, by the strictest measure that applies.

Where CPU model, instruction set, threads, code and packages (or image) are those of the record, a
run on a CPU must give the same bits. Elsewhere float64 must agree within 1e-11, and the rest by the
statistics of the report: nothing less would be a statement on the study.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.archive import arrays
from lockstep.archive.completeness import read
from lockstep.parity import compare as ladder
from lockstep.report import compare as studies
from lockstep.report import sentences, verdicts
from lockstep.study import Study
from lockstep.study.run import Run

FLOAT64 = 1e-11

BITS = "same bits"
DOUBLE = "float64 within 1e-11"
STATISTICS = "statistics"

Sides = tuple[Mapping[str, Any], np.ndarray, np.ndarray]

YES, NO, UNDECIDED = "reproduced", "NOT REPRODUCED", "undecided"


class Lacking(Exception):
    """A record does not say what a run is judged by; the message says which, and what."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one run, trace or comparison.

    Attributes:
        what: its name.
        measure: which measure applied, one of `BITS`, `DOUBLE`, `STATISTICS`.
        outcome: `reproduced`, `NOT REPRODUCED` or `undecided`.
        says: what was found, in words.
        differs: which conditions are not those of the record; empty for `BITS`.
    """

    what: str
    measure: str
    outcome: str
    says: str
    differs: Sequence[str] = ()


def outcomes(archived: Study, again: Study, runs: Sequence[str]) -> list[Outcome]:
    """Compare a study that was run again with the archived one."""
    found = []
    for run in again.runs:
        if run.name in runs:
            found.append(_run(archived, again, run))
    found += list(_traces(archived, again))
    if any(outcome.measure == STATISTICS for outcome in found):
        found += _statistics(archived, again)
    return found


def _run(archived: Study, again: Study, run: Run) -> Outcome:
    old, new = _record(archived, run), _record(again, run)
    if old is None or new is None:
        which, word = ("archive", UNDECIDED) if old is None else ("repetition", NO)
        says = f"the {which} has no record of it"
        return Outcome(what=run.name, measure=BITS, outcome=word, says=says)
    return judge(run.name, old, new)


def judge(name: str, old: Sides, new: Sides) -> Outcome:
    """Return what became of one run; undecided where a record lacks what it is judged by.

    Args:
        old, new: summary, losses ``(steps,)`` and checksums of batches ``(steps,)``.
    """
    try:
        return _judged(name, old, new)
    except Lacking as problem:
        says = str(problem)
    except Exception as error:  # a damaged record raises almost anything
        says = f"its records cannot be compared ({error!r:.200})"
    return Outcome(what=name, measure=BITS, outcome=UNDECIDED, says=says)


def _judged(name: str, old: Sides, new: Sides) -> Outcome:
    differs = conditions(old[0], new[0])
    same = np.array_equal(old[1], new[1], equal_nan=True)
    measure, outcome = BITS, NO
    distance = _distance(old[1], new[1])
    was, now = _told(old[0], new[0], "status")
    if was != now:
        says = f"{was} in the archive, {now} now"
    elif len(old[2]) != len(new[2]):
        says = f"{len(new[2])} steps instead of {len(old[2])}"
    elif not np.array_equal(old[2], new[2]):
        # Which examples a step takes depends on no machine.
        says = f"other batches than in the archive (step {_first(old[2] != new[2])})"
    elif not differs:
        was, now = _told(old[0], new[0], "weights", "final")
        state = was == now
        if same and state:
            outcome = YES
            says = f"all {len(old[1])} losses, all batches and the final state have the same bits"
        elif same:
            says = f"all {len(old[1])} losses have the same bits, but the final state differs"
        else:
            first = _first((old[1] != new[1]) & ~(np.isnan(old[1]) & np.isnan(new[1])))
            says = f"losses differ by {distance:.1e} at most, first in step {first}"
    elif _of(old[0], "archive", "contract", "variant", "precision") == "float64":
        measure, outcome = DOUBLE, YES if distance <= FLOAT64 else NO
        says = f"the same batches; losses differ by {distance:.1e} at most"
    else:
        measure, outcome = STATISTICS, UNDECIDED
        says = f"the same batches; losses differ by {distance:.1e} at most, judged below"
    return Outcome(what=name, measure=measure, outcome=outcome, says=says, differs=differs)


def _record(study: Study, run: Run) -> Sides | None:
    """Return a run's summary, losses ``(steps,)`` and batches' checksums ``(steps,)``."""
    folder = study.run_folder(run)
    summary = read(folder / "summary.json")
    try:
        steps = arrays.read(folder / "steps.npz")
        return None if summary is None else (summary, steps["loss"], steps["checksum"])
    except (arrays.Unreadable, KeyError):
        return None


def conditions(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return in what two runs' conditions differ, of what can change bits."""
    host = _told(old, new, "contract", "host")
    pairs = {
        "CPU": _told(old, new, "contract", "host", "cpu"),
        "instruction set": _told(old, new, "contract", "host", "instruction_set"),
        "threads": _told(old, new, "contract", "topology", "threads"),
        "GPUs": (_gpus(host[0]), _gpus(host[1])),
        "code": _told(old, new, "contract", "determined_by", "code"),
        "begun from": (_begun(old), _begun(new)),
    }
    differs = [f"{name}: {x} / {y}" for name, (x, y) in pairs.items() if x != y]
    deterministic = _of(old, "archive", "contract", "variant", "deterministic")
    if _gpus(host[0]) and not deterministic:
        differs.append("a GPU without deterministic kernels need not give the same bits twice")
    here, there = _told(old, new, "contract", "determined_by", "environment")
    differs += [
        f"{name}: {here.get(name, 'none')} / {there.get(name, 'none')}"
        for name in sorted({*here, *there})
        if here.get(name) != there.get(name)
    ]
    return differs


def _told(old: Mapping[str, Any], new: Mapping[str, Any], *path: str) -> tuple[Any, Any]:
    """Return what both summaries say there.

    Raises:
        Lacking: one of them says nothing.
    """
    return _of(old, "archive", *path), _of(new, "repetition", *path)


def _of(summary: Any, whose: str, *path: str) -> Any:
    for key in path:
        if not isinstance(summary, Mapping) or key not in summary:
            raise Lacking(f"the {whose}'s record lacks {'.'.join(path)}")
        summary = summary[key]
    return summary


def _begun(summary: Mapping[str, Any]) -> str:
    other = summary.get("resumed_from")
    return f"step {other['step']} of run {other['identity'][:12]}" if other else "its weights"


def _gpus(host: Mapping[str, Any]) -> list[str]:
    return [f"{gpu['name']}, driver {gpu['driver']}" for gpu in host.get("gpus", [])]


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest relative difference; where only one of two is NaN, it is infinite."""
    if len(a) != len(b) or not len(a):
        return float("inf") if len(a) != len(b) else 0.0
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        apart = np.where(same, 0.0, np.abs(a - b) / np.maximum(np.abs(a), 1e-300))
    return float(np.where(np.isnan(apart), np.inf, apart).max())


def _first(differs: np.ndarray) -> int:
    return int(np.argmax(differs)) + 1


# In float64 ----------------------------------------------------------------------------------


def _traces(archived: Study, again: Study) -> Iterator[Outcome]:
    """Compare the traces of parity: what the frameworks compute in float64, rung by rung."""
    if archived.config["seeds"][0] != again.config["seeds"][0]:
        return
    for workload in again.config["workloads"]:
        for variant in again.traces():
            paths = [study.trace(workload, variant) for study in (archived, again)]
            if not paths[0].is_file():
                continue  # traces are not in every archive
            what = f"trace {workload}/{variant}"
            why = [problem for problem in map(arrays.problem, paths) if problem]
            if not paths[1].is_file() or why:
                says = why[0] if paths[1].is_file() else "the repetition has none"
                yield Outcome(what=what, measure=DOUBLE, outcome=NO, says=says)
                continue
            try:
                old, new = map(ladder.load, paths)
                rungs = ladder.compare(new, old, precisions=("float64",))
            except Exception as error:  # a damaged file raises almost anything
                yield Outcome(what=what, measure=DOUBLE, outcome=NO, says=f"no trace ({error})")
                continue
            failed = [rung for rung in rungs if not rung.passed]
            worst = max(rungs, key=lambda rung: rung.value)
            says = (
                f"every rung of the ladder agrees (at most {worst.value:.1e}, {worst.name})"
                if not failed
                else f"{failed[0].name}: {failed[0].first} differs by {failed[0].first_value:.1e}"
            )
            yield Outcome(what=what, measure=DOUBLE, outcome=NO if failed else YES, says=says)


# By the report's statistics ------------------------------------------------------------------


def _statistics(archived: Study, again: Study) -> list[Outcome]:
    try:
        return list(_compared(archived, again))
    except Exception as error:  # of records that lack anything
        says = f"the report's statistics cannot be computed ({error!r:.200})"
        what = f"study {again.name}"
        return [Outcome(what=what, measure=STATISTICS, outcome=UNDECIDED, says=says)]


def _compared(archived: Study, again: Study) -> Iterator[Outcome]:
    words = {
        verdicts.EQUIVALENT: YES,
        verdicts.DIFFERENT: NO,
    }
    for variant, c in studies.compare(Path(archived.root), Path(again.root)).comparisons:
        outcome = words.get(c.quality_kind, UNDECIDED)
        says = f"{sentences.quality_sentence(c)} {sentences.sentence(c)}"
        for study, name in ((archived, "the archive"), (again, "the repetition")):
            says = says.replace(str(study.root), name)
        what = f"{c.workload}/{variant}/{c.scale}"
        yield Outcome(what=what, measure=STATISTICS, outcome=outcome, says=says)


def conclusion(found: Sequence[Outcome]) -> str:
    """Return what may be said of the whole."""
    judged = [outcome.outcome for outcome in found]
    if NO in judged or not judged:
        return NO
    by_run = [o for o in found if o.measure == STATISTICS and "/seed-" in o.what]
    rest = [o for o in found if o not in by_run]
    if any(o.outcome == UNDECIDED for o in rest):
        return UNDECIDED
    return YES
