"""What became of running a study again: run by run, by the strictest measure that applies.

Equal losses, batches and final state are a reproduction whatever differs. Where CPU model,
instruction set, threads, code and packages (or image) are those of the record, a run must have
them. Elsewhere float64 must agree within 1e-11, and the rest by the statistics of the report.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.parity import compare as ladder
from lockstep.records import record_tables
from lockstep.report import compare as studies
from lockstep.report import sentences, verdicts
from lockstep.study import Study
from lockstep.study.run import Run

FLOAT64 = 1e-11
BITS, DOUBLE, STATISTICS = "same bits", "float64 within 1e-11", "statistics"
YES, NO, UNDECIDED = "reproduced", "NOT REPRODUCED", "undecided"
NOT_JUDGED = "not judged"  # what is said and decides nothing

Side = tuple[Mapping[str, Any], np.ndarray, np.ndarray]
"""A run's summary, losses ``(steps,)`` and checksums of batches ``(steps,)``."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one run, trace or comparison."""

    what: str  # its name
    measure: str  # `BITS`, `DOUBLE`, `STATISTICS`, or one of `deployment_outcome`
    outcome: str  # `YES`, `NO`, `UNDECIDED` or `NOT_JUDGED`
    says: str  # what was found, in words
    differs: Sequence[str] = ()  # which conditions are not those of the record


def outcomes(archived: Study, again: Study, runs: Sequence[str]) -> list[Outcome]:
    """Compare a study that was run again with the archived one."""
    found: list[Outcome] = []
    for run in again.runs:
        if run.name in runs:
            found += attempted(run.name, BITS, _run, archived, again, run)
    found += _traces(archived, again)
    if any(o.measure == STATISTICS for o in found):
        found += attempted(f"study {again.name}", STATISTICS, _compared, archived, again)
    return found


def attempted(
    what: str, measure: str, compare: Callable[..., Iterable[Outcome]], *given: Any
) -> list[Outcome]:
    """Return what a comparison gives; undecided where records do not say what it needs."""
    try:
        return list(compare(*given))
    except Exception as error:  # a damaged record raises almost anything
        says = f"its records cannot be compared ({error!r:.200})"
        return [Outcome(what=what, measure=measure, outcome=UNDECIDED, says=says)]


def conclusion(found: Sequence[Outcome]) -> str:
    """Return what may be said of the whole."""
    judged = [outcome.outcome for outcome in found]
    if NO in judged or not judged:
        return NO
    settled = [o for o in found if not (o.measure == STATISTICS and "/seed-" in o.what)]
    return UNDECIDED if any(o.outcome == UNDECIDED for o in settled) else YES


# Runs -----------------------------------------------------------------------------------------


def _run(archived: Study, again: Study, run: Run) -> Iterator[Outcome]:
    old, new = side(archived, run), side(again, run)
    if old and new:
        yield judge(run.name, old, new)
        return
    which, word = ("repetition", NO) if old else ("archive", UNDECIDED)
    says = f"the {which} has no record of it"
    yield Outcome(what=run.name, measure=BITS, outcome=word, says=says)


def side(study: Study, run: Run) -> Side | None:
    """Return what a run is compared by; None without a record.

    Raises:
        Unsound: its arrays cannot be read.
    """
    folder = study.run_folder(run)
    try:
        summary = json.loads((folder / "summary.json").read_bytes())
        steps = record_tables.read_arrays((folder / "steps.npz").read_bytes(), "steps.npz")
        return summary, steps["loss"], steps["checksum"]
    except (OSError, ValueError, KeyError, RecursionError):
        return None


def judge(name: str, old: Side, new: Side) -> Outcome:
    """Return what became of one run.

    Raises:
        KeyError: a record does not say what it is judged by.
    """
    (summary, losses, batches), (now, new_losses, new_batches) = old, new
    differs = conditions(summary, now)
    measure, word, says = BITS, NO, ""
    distance = _distance(losses, new_losses)
    most = f"losses differ by {distance:.1e} at most"
    if summary["status"] != now["status"]:
        says = f"{summary['status']} in the archive, {now['status']} now"
    elif len(batches) != len(new_batches):
        says = f"{len(new_batches)} steps instead of {len(batches)}"
    elif (other := batches != new_batches).any():
        # Which examples a step takes depends on no machine.
        says = f"other batches than in the archive (step {_first(other)})"
    elif distance == 0 and summary["weights"]["final"] == now["weights"]["final"]:
        says = f"all {len(losses)} losses, all batches and the final state have the same bits"
        word = YES
    elif (nan := np.isnan(losses) != np.isnan(new_losses)).any():
        says = f"the loss is not a number on one side alone (step {_first(nan)})"
    elif not differs and distance == 0:
        says = "all losses have the same bits, but the final state differs"
    elif not differs:
        first = _first((losses != new_losses) & ~np.isnan(losses))
        says = f"{most}, first in step {first}"
    elif summary["contract"]["variant"]["precision"] == "float64":
        measure, word = DOUBLE, YES if distance <= FLOAT64 else NO
        says = f"the same batches; {most}"
    else:
        measure, word = STATISTICS, UNDECIDED
        says = f"the same batches; {most}, judged below"
    return Outcome(what=name, measure=measure, outcome=word, says=says, differs=differs)


def conditions(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return in what two runs' conditions differ, of what can change bits.

    Raises:
        KeyError: a record does not say one of them.
    """

    def of(summary: Mapping[str, Any]) -> dict[str, Any]:
        contract = summary["contract"]
        host, other = contract["host"], summary.get("resumed_from")
        return {
            "CPU": host["cpu"],
            "instruction set": host["instruction_set"],
            "threads": contract["topology"]["threads"],
            "GPUs": [f"{gpu['name']}, driver {gpu['driver']}" for gpu in host.get("gpus", [])],
            "code": contract["determined_by"]["code"],
            "begun from": (
                f"step {other['step']} of run {other['identity'][:12]}" if other else "its weights"
            ),
            **contract["determined_by"]["environment"],
        }

    a, b = of(old), of(new)
    differs = unequal(a, b)
    if a["GPUs"] and not old["contract"]["variant"]["deterministic"]:
        differs.append("a GPU without deterministic kernels need not give the same bits twice")
    return differs


def unequal(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return which of two sides' conditions, by name, are not the same, with both values."""
    return [f"{name}: {a.get(name, 'none')} / {b.get(name, 'none')}"
            for name in {**a, **b} if a.get(name) != b.get(name)]  # fmt: skip


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest relative difference; where only one of two is NaN, it is infinite."""
    if len(a) != len(b) or not len(a):
        return float("inf") if len(a) != len(b) else 0.0
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    with np.errstate(invalid="ignore"):
        relative = np.where(same, 0.0, np.abs(a - b) / np.maximum(np.abs(a), 1e-300))
    return float(np.where(np.isnan(relative), np.inf, relative).max())


def _first(differs: np.ndarray) -> int:
    return int(np.argmax(differs)) + 1


# Traces and statistics ------------------------------------------------------------------------


def _traces(archived: Study, again: Study) -> Iterator[Outcome]:
    """Compare the traces of parity: what the frameworks compute in float64, rung by rung."""
    if archived.config["seeds"][0] != again.config["seeds"][0]:
        return
    for workload in again.config["workloads"]:
        for variant in again.traces():
            old, new = (study.trace(workload, variant) for study in (archived, again))
            if old.is_file():  # traces are not in every archive
                what = f"trace {workload}/{variant}"
                yield from attempted(what, DOUBLE, _trace, what, old, new)


def _trace(what: str, old: Path, new: Path) -> Iterator[Outcome]:
    word, says = NO, "the repetition has none"
    if new.is_file():
        a, b = (record_tables.read_arrays(path.read_bytes(), path.name) for path in (new, old))
        rungs = ladder.compare(a, b, precisions=("float64",))
        failed = [rung for rung in rungs if not rung.passed]
        worst, word = max(rungs, key=lambda rung: rung.value), NO if failed else YES
        says = f"every rung of the ladder agrees (at most {worst.value:.1e}, {worst.name})"
        if failed:
            first = failed[0]
            says = f"{first.name}: {first.first} differs by {first.first_value:.1e}"
    yield Outcome(what=what, measure=DOUBLE, outcome=word, says=says)


def _compared(archived: Study, again: Study) -> Iterator[Outcome]:
    words, called = {verdicts.EQUIVALENT: YES, verdicts.DIFFERENT: NO}, ("archive", "repetition")
    found = studies.compare(Path(archived.root), Path(again.root), called=called)
    for variant, c in found.comparisons:
        says = f"{sentences.quality_sentence(c)} {sentences.sentence(c)}"
        what, word = f"{c.workload}/{variant}/{c.scale}", words.get(c.quality_kind, UNDECIDED)
        yield Outcome(what=what, measure=STATISTICS, outcome=word, says=says)
