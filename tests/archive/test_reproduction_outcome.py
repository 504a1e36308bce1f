"""What running a study again is compared by."""

import json
from pathlib import Path

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
    Side,
)
from lockstep.study import Study
from tests.archive.conftest import Archived


@pytest.fixture
def again(archived: Archived, tmp_path: Path) -> Study:
    """A copy of the finished study, as if it had been run again."""
    copied = archived.checkout.duplicate(tmp_path / "lockstep")
    return Study.at(copied.results())


def outcome(archived: Archived, again: Study) -> list[reproduction_outcome.Outcome]:
    return reproduction_outcome.outcomes(archived.study, again, [run.name for run in again.runs])


def sides(archived: Archived, again: Study) -> tuple[str, Side, Side]:
    """The first run's name and what it is compared by."""
    first = again.runs[0]
    old, new = (reproduction_outcome.side(study, first) for study in (archived.study, again))
    assert old and new
    return first.name, old, new


def change_summary(study: Study, change) -> None:
    for run in study.runs:
        path = study.run_folder(run) / "summary.json"
        summary = json.loads(path.read_text())
        change(summary)
        path.write_text(json.dumps(summary))


def change_steps(study: Study, factor: float, checksum: int = 0) -> None:
    for run in study.runs:
        path = study.run_folder(run) / "steps.npz"
        with np.load(path) as steps:
            arrays = dict(steps)
        arrays["loss"] = arrays["loss"] * factor
        arrays["checksum"] = arrays["checksum"] ^ np.uint32(checksum)
        np.savez(path, **arrays)


def other_cpu(summary: dict) -> None:
    summary["contract"]["host"]["cpu"] = "another CPU"


def test_equal_conditions_ask_for_equal_bits(archived: Archived, again: Study) -> None:
    found = outcome(archived, again)
    assert {o.measure for o in found if o.what.startswith("mnist")} == {BITS}
    assert reproduction_outcome.conclusion(found) == YES
    change_steps(again, 1 + 1e-15)
    found = outcome(archived, again)
    assert reproduction_outcome.conclusion(found) == NO
    assert any("losses differ by" in o.says for o in found)


def test_on_another_cpu_float64_is_held_to_its_tolerance(archived: Archived, again: Study) -> None:
    def double(summary: dict) -> None:
        other_cpu(summary)
        summary["contract"]["variant"]["precision"] = "float64"

    name, old, new = sides(archived, again)
    double(old[0])
    double(new[0])
    new[0]["contract"]["host"]["cpu"] = "yet another CPU"
    for factor, word in ((1 + 1e-13, YES), (1 + 1e-9, NO)):
        judged = reproduction_outcome.judge(name, old, (new[0], new[1] * factor, new[2]))
        assert (judged.measure, judged.outcome) == (DOUBLE, word)


def test_on_another_cpu_float32_is_left_to_the_statistics(archived: Archived, again: Study) -> None:
    change_summary(again, other_cpu)
    change_steps(again, 1 + 1e-6)
    found = outcome(archived, again)
    runs = [o for o in found if "/seed-" in o.what]
    assert {o.measure for o in runs} == {STATISTICS}
    assert all("CPU: " in o.differs[0] for o in runs)
    traces = [o for o in found if o.what.startswith("trace ")]
    assert {(o.measure, o.outcome) for o in traces} == {(DOUBLE, YES)}
    verdicts = [o for o in found if o.measure == STATISTICS and o not in runs]
    assert len(verdicts) == 2


def test_a_run_that_another_run_began_is_not_held_to_its_bits(
    archived: Archived, again: Study
) -> None:
    name, old, new = sides(archived, again)
    old[0]["resumed_from"] = {"identity": "f" * 64, "step": 5}
    judged = reproduction_outcome.judge(name, old, (new[0], new[1] * (1 + 1e-7), new[2]))
    assert judged.measure == STATISTICS
    assert judged.differs == [f"begun from: step 5 of run {'f' * 12} / its weights"]


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
def test_a_loss_that_is_none_is_as_far_as_can_be(
    a: list[float], b: list[float], distance: float
) -> None:
    assert reproduction_outcome._distance(np.array(a), np.array(b)) == distance


def test_equal_bits_are_a_reproduction_whatever_differs(archived: Archived, again: Study) -> None:
    name, old, new = sides(archived, again)
    other_cpu(new[0])
    judged = reproduction_outcome.judge(name, old, new)
    assert (judged.outcome, judged.measure) == (YES, BITS)
    assert judged.differs[0].startswith("CPU: ")


@pytest.mark.parametrize("side", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_nan_on_one_side_is_no_reproduction(
    archived: Archived, again: Study, side: int, precision: str
) -> None:
    name, *both = sides(archived, again)
    other_cpu(both[1][0])
    both[0][0]["contract"]["variant"]["precision"] = precision
    both[side - 1][1][3] = np.nan
    judged = reproduction_outcome.judge(name, *both)
    assert judged.outcome == NO
    assert judged.says == "the loss is not a number on one side alone (step 4)"


def test_another_final_state_alone_is_called_so(archived: Archived, again: Study) -> None:
    name, old, new = sides(archived, again)
    new[0]["weights"]["final"] = "0" * 64
    judged = reproduction_outcome.judge(name, old, new)
    assert (judged.outcome, judged.measure) == (NO, BITS)
    assert judged.says.endswith("losses have the same bits, but the final state differs")
    new[1][:1] = old[1][:1] = np.nan
    new[1][4] += 1
    assert reproduction_outcome.judge(name, old, new).says.endswith("first in step 5")


@pytest.mark.parametrize("path", ["status", "contract.host.cpu", "weights.final"])
@pytest.mark.parametrize("side", [0, 1])
def test_a_run_whose_record_says_too_little_is_undecided(
    archived: Archived, again: Study, path: str, side: int
) -> None:
    name, *both = sides(archived, again)
    *parents, last = path.split(".")
    inner = both[side][0]
    for key in parents:
        inner = inner[key]
    del inner[last]
    judged = reproduction_outcome.judge(name, *both)
    assert judged.outcome == UNDECIDED
    assert judged.says == f"its records cannot be compared (KeyError('{last}'))"


def test_there_is_a_record_whatever_is_missing_in_those_that_are_compared(
    archived: Archived, again: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def emptied(summary: dict) -> None:
        other_cpu(summary)
        del summary["metrics"]
        summary["resumed_from"] = {"step": 1}

    change_summary(again, emptied)
    (again.run_folder(again.runs[0]) / "summary.json").write_text("[]")
    with archive_reader.opened(archived.file) as archive:
        chosen = reproduction_plan.plan(archive, folder=tmp_path / "x", profile="profiles/local")
    (chosen.folder / "archived").mkdir(parents=True)
    (chosen.folder / "archived" / "small").symlink_to(archived.study.root)
    (chosen.checkout / "results").mkdir(parents=True)
    (chosen.checkout / "results" / "small").symlink_to(again.root)
    assert repetition.conclude(chosen, archived.file, None, 0) == repetition.DIFFERS
    said = capsys.readouterr().out
    assert "study small: undecided" in said and "cannot be compared" in said
    told = json.loads((chosen.folder / "reproduction.json").read_text())
    assert told["conclusion"] == UNDECIDED


def test_a_trace_that_is_not_made_again_is_no_reproduction(
    archived: Archived, again: Study
) -> None:
    again.trace("mnist_cnn", "jax-jit").unlink()
    found = outcome(archived, again)
    assert reproduction_outcome.conclusion(found) == NO
    (trace,) = [o for o in found if o.what == "trace mnist_cnn/jax-jit"]
    assert (trace.outcome, trace.says) == (NO, "the repetition has none")


def test_other_batches_are_never_a_reproduction(archived: Archived, again: Study) -> None:
    change_summary(again, other_cpu)
    change_steps(again, 1.0, checksum=1)
    found = outcome(archived, again)
    assert reproduction_outcome.conclusion(found) == NO
    assert any("other batches than in the archive (step 1)" in o.says for o in found)


def test_a_missing_run_is_no_reproduction(archived: Archived, again: Study) -> None:
    (again.run_folder(again.runs[0]) / "summary.json").unlink()
    found = outcome(archived, again)
    assert reproduction_outcome.conclusion(found) == NO
