"""What running a study again is compared by."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.archive import archive_reader
from lockstep.reproduce import repetition, reproduction_outcome, reproduction_plan
from lockstep.reproduce.reproduction_outcome import (
    BITS,
    DOUBLE,
    NO,
    STATISTICS,
    UNDECIDED,
    YES,
    Outcome,
)
from lockstep.study import Study
from tests.archive import tamper
from tests.archive.archived import Archived

Change = tuple[int, str, Any]
"""A side, 0 for the archive's and 1 for the repetition's, a place in it, and what is put there."""

CPU = (1, "summary.contract.host.cpu", "another CPU")
FLOAT64 = (0, "summary.contract.variant.precision", "float64")
BATCHES = (1, "checksum", lambda sums: sums ^ np.uint32(1))
STATE = (1, "summary.weights.final", "0" * 64)
BEGUN = (0, "summary.resumed_from", {"identity": "f" * 64, "step": 5})
NAN, OTHER = [(side, "loss.3", np.nan) for side in (0, 1)], (1, "loss.4", 9.0)


def scaled(factor: float) -> Change:
    return 1, "loss", lambda loss: loss * factor


@pytest.fixture
def judged(archived: Archived) -> Callable[..., Outcome]:
    """Judge the first run against itself, after changes."""

    def judge(changes: Sequence[Change]) -> Outcome:
        study, names = archived.study, ("summary", "loss", "checksum")
        sides = [dict(zip(names, reproduction_outcome.side(study, study.runs[0]))) for _ in "ab"]
        for side, place, value in changes:
            tamper.put(sides[side], place, value)
        return reproduction_outcome.judge("run", *(tuple(side.values()) for side in sides))

    return judge


ELSEWHERE = f"begun from: step 5 of run {'f' * 12} / its weights"
JUDGED = [
    ([], BITS, YES, "have the same bits"),
    ([CPU], BITS, YES, "have the same bits"),  # equal bits count whatever differs
    ([scaled(1 + 1e-15)], BITS, NO, "losses differ by"),
    ([CPU, BATCHES], BITS, NO, "other batches than in the archive (step 1)"),
    ([STATE], BITS, NO, "losses have the same bits, but the final state differs"),
    ([*NAN, OTHER], BITS, NO, "first in step 5"),
    ([CPU, NAN[0]], BITS, NO, "the loss is not a number on one side alone (step 4)"),
    ([CPU, NAN[1]], BITS, NO, "the loss is not a number on one side alone (step 4)"),
    ([CPU, FLOAT64, scaled(1 + 1e-13)], DOUBLE, YES, "\nCPU: "),
    ([CPU, FLOAT64, scaled(1 + 1e-9)], DOUBLE, NO, "\nCPU: "),
    ([CPU, scaled(1 + 1e-7)], STATISTICS, UNDECIDED, "\nCPU: "),
    ([BEGUN, scaled(1 + 1e-7)], STATISTICS, UNDECIDED, ELSEWHERE),
]


@pytest.mark.parametrize(("changes", "measure", "word", "says"), JUDGED)
def test_equal_conditions_ask_for_equal_bits_and_others_for_a_tolerance(
    judged, changes: Sequence[Change], measure: str, word: str, says: str
) -> None:
    found = judged(changes)
    assert (found.measure, found.outcome) == (measure, word)
    assert says in "\n".join([found.says, *found.differs]) and len(found.differs) <= 1


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ([1, 2, 4], [1, 2, 5], 0.25),
        ([1, np.nan, 3], [1, 2, 3], np.inf),
        ([1, np.nan, np.inf], [1, np.nan, np.inf], 0.0),
        ([1, np.inf], [1, -np.inf], np.inf),
        ([1, 2], [1], np.inf),
        ([], [], 0.0),
    ],
)
def test_how_far_losses_are(a: list[float], b: list[float], distance: float) -> None:
    assert reproduction_outcome._distance(np.array(a), np.array(b)) == distance


# Of a whole study -----------------------------------------------------------------------------


@pytest.fixture
def again(archived: Archived, tmp_path: Path) -> Study:
    """A copy of the finished study, as if it had been run again."""
    return Study.load(archived.checkout.duplicate(tmp_path / "lockstep").results())


def outcomes(archived: Archived, again: Study) -> dict[str, Outcome]:
    names = [run.name for run in again.runs]
    return {o.what: o for o in reproduction_outcome.outcomes(archived.study, again, names)}


def change(study: Study, **values: Any) -> None:
    """Change the summary of each run, and let it say that it ran on another CPU."""
    for run in study.runs:
        path = study.run_folder(run) / "summary.json"
        summary = {**json.loads(path.read_text()), **values}
        tamper.put(summary, "contract.host.cpu", "another CPU")
        path.write_text(json.dumps(summary))


def test_a_study_is_reproduced_if_every_run_and_trace_is(archived: Archived, again: Study) -> None:
    found = outcomes(archived, again)
    assert {run.name for run in again.runs} < found.keys()
    assert reproduction_outcome.conclusion([*found.values()]) == YES
    again.trace("mnist_cnn", "jax-jit").unlink()
    (again.run_folder(again.runs[0]) / "summary.json").unlink()
    found = outcomes(archived, again)
    assert reproduction_outcome.conclusion([*found.values()]) == NO
    trace, run = found["trace mnist_cnn/jax-jit"], found[again.runs[0].name]
    assert (trace.outcome, trace.says) == (NO, "the repetition has none")
    assert (run.outcome, run.says) == (NO, "the repetition has no record of it")


def test_on_another_cpu_float32_is_left_to_the_statistics(archived: Archived, again: Study) -> None:
    change(again)
    for run in again.runs:
        path = again.run_folder(run) / "steps.npz"
        with np.load(path) as steps:
            np.savez(path, **{**steps, "loss": steps["loss"] * (1 + 1e-6)})
    found = outcomes(archived, again)
    assert {found.pop(run.name).measure for run in again.runs} == {STATISTICS}
    traces = [found.pop(name) for name in [*found] if name.startswith("trace ")]
    assert {(o.measure, o.outcome) for o in traces} == {(DOUBLE, YES)}
    assert [o.measure for o in found.values()] == [STATISTICS] * 2


def test_there_is_a_record_whatever_is_missing_in_those_that_are_compared(
    archived: Archived, again: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(again, metrics=None, resumed_from={"step": 1})
    (again.run_folder(again.runs[0]) / "summary.json").write_text("[]")
    with archive_reader.opened(archived.file) as archive:
        chosen = reproduction_plan.plan(archive, folder=tmp_path / "x", profile="profiles/local")
    for folder, study in ((chosen.folder / "archived", archived.study),
                          (chosen.checkout / "results", again)):  # fmt: skip
        folder.mkdir(parents=True)
        (folder / "small").symlink_to(study.root)
    assert repetition.conclude(chosen, archived.file, None, 0) == repetition.DIFFERS
    said = capsys.readouterr().out
    assert "study small: undecided" in said
    assert "its records cannot be compared (KeyError('identity'))" in said
    told = json.loads((chosen.folder / "reproduction.json").read_text())
    assert told["conclusion"] == UNDECIDED
