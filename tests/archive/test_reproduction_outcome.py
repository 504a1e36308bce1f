"""What running a study again is compared by."""

import json
from collections.abc import Callable
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
from tests.archive.conftest import Archived


class Pair:
    """What the first run is compared by, of the archive and of its repetition."""

    def __init__(self, study: Study) -> None:
        self.name = study.runs[0].name
        self.old, self.new = (self._side(study) for _ in "ab")

    @staticmethod
    def _side(study: Study) -> dict[str, Any]:
        side = reproduction_outcome.side(study, study.runs[0])
        assert side is not None
        return dict(zip(("summary", "loss", "checksum"), side, strict=True))

    def judged(self) -> Outcome:
        sides = (tuple(side.values()) for side in (self.old, self.new))
        return reproduction_outcome.judge(self.name, *sides)


@pytest.fixture
def pair(archived: Archived) -> Pair:
    """Two sides of one run, which are equal."""
    return Pair(archived.study)


def other_cpu(summary: dict) -> None:
    summary["contract"]["host"]["cpu"] = "another CPU"


def test_equal_conditions_ask_for_equal_bits(pair: Pair) -> None:
    assert (pair.judged().measure, pair.judged().outcome) == (BITS, YES)
    pair.new["loss"] = pair.new["loss"] * (1 + 1e-15)
    judged = pair.judged()
    assert (judged.measure, judged.outcome) == (BITS, NO)
    assert judged.says.startswith("losses differ by")


def test_equal_bits_are_a_reproduction_whatever_differs(pair: Pair) -> None:
    other_cpu(pair.new["summary"])
    judged = pair.judged()
    assert (judged.outcome, judged.measure) == (YES, BITS)
    assert judged.differs[0].startswith("CPU: ")


@pytest.mark.parametrize(("factor", "word"), [(1 + 1e-13, YES), (1 + 1e-9, NO)])
def test_float64_elsewhere_has_a_tolerance(pair: Pair, factor: float, word: str) -> None:
    other_cpu(pair.new["summary"])
    pair.old["summary"]["contract"]["variant"]["precision"] = "float64"
    pair.new["loss"] = pair.new["loss"] * factor
    assert (pair.judged().measure, pair.judged().outcome) == (DOUBLE, word)


def test_a_run_that_another_run_began_is_not_held_to_its_bits(pair: Pair) -> None:
    pair.old["summary"]["resumed_from"] = {"identity": "f" * 64, "step": 5}
    pair.new["loss"] = pair.new["loss"] * (1 + 1e-7)
    judged = pair.judged()
    assert judged.measure == STATISTICS
    assert judged.differs == [f"begun from: step 5 of run {'f' * 12} / its weights"]


@pytest.mark.parametrize("side", ["old", "new"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_nan_on_one_side_is_no_reproduction(pair: Pair, side: str, precision: str) -> None:
    other_cpu(pair.new["summary"])
    pair.old["summary"]["contract"]["variant"]["precision"] = precision
    getattr(pair, side)["loss"][3] = np.nan
    judged = pair.judged()
    assert judged.outcome == NO
    assert judged.says == "the loss is not a number on one side alone (step 4)"


def test_another_final_state_alone_is_called_so(pair: Pair) -> None:
    pair.new["summary"]["weights"]["final"] = "0" * 64
    judged = pair.judged()
    assert (judged.outcome, judged.measure) == (NO, BITS)
    assert judged.says.endswith("losses have the same bits, but the final state differs")
    pair.new["loss"][0] = pair.old["loss"][0] = np.nan
    pair.new["loss"][4] += 1
    assert pair.judged().says.endswith("first in step 5")


def test_other_batches_are_never_a_reproduction(pair: Pair) -> None:
    other_cpu(pair.new["summary"])
    pair.new["checksum"] ^= np.uint32(1)
    assert pair.judged().outcome == NO
    assert pair.judged().says == "other batches than in the archive (step 1)"


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ([1, 2, 3], [1, 2, 3], 0.0),
        ([1, 2, 4], [1, 2, 5], 0.25),
        ([1, 2, 3], [1, np.nan, 3], np.inf),
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
    return Study.at(archived.checkout.duplicate(tmp_path / "lockstep").results())


def outcomes(archived: Archived, again: Study) -> dict[str, Outcome]:
    names = [run.name for run in again.runs]
    return {o.what: o for o in reproduction_outcome.outcomes(archived.study, again, names)}


def change(study: Study, edit: Callable[[dict], object]) -> None:
    """Change the summary of each run."""
    for run in study.runs:
        path = study.run_folder(run) / "summary.json"
        summary = json.loads(path.read_text())
        edit(summary)
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
    change(again, other_cpu)
    for run in again.runs:
        path = again.run_folder(run) / "steps.npz"
        with np.load(path) as steps:
            np.savez(path, **{**steps, "loss": steps["loss"] * (1 + 1e-6)})
    found = outcomes(archived, again)
    runs = [found.pop(run.name) for run in again.runs]
    assert all(run.measure == STATISTICS and "CPU: " in run.differs[0] for run in runs)
    traces = [found.pop(name) for name in [*found] if name.startswith("trace ")]
    assert {(o.measure, o.outcome) for o in traces} == {(DOUBLE, YES)}
    assert [o.measure for o in found.values()] == [STATISTICS] * 2


def test_there_is_a_record_whatever_is_missing_in_those_that_are_compared(
    archived: Archived, again: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def emptied(summary: dict) -> None:
        other_cpu(summary)
        del summary["metrics"]
        summary["resumed_from"] = {"step": 1}

    change(again, emptied)
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
