"""How a workflow ends, by what Snakemake logs of it."""

import logging
from pathlib import Path

import pytest

from lockstep.outcome import MOST, Outcome, tidy

REFUSED = (
    "lockstep: error: digits.h5: cannot be written, no space left on device; free some space\n"
)
CRASHED = "Traceback (most recent call last):\n  …\nRuntimeError: boom\n\n"


class Listening:
    """An outcome, and what it has heard."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stops = folder, 0
        self.given_up: list[int] = []
        self.outcome = Outcome(("Execute ",), self.stop, self.given_up.append)

    def stop(self) -> None:
        self.stops += 1

    def hear(self, message: str, **more: object) -> bool:
        record = logging.LogRecord("snakemake", logging.INFO, "", 0, message, (), None)
        record.__dict__.update(more)
        return self.outcome.filter(record)

    def fails(self, job: int, log: str, said: str = "its status is 'FAILED'") -> bool:
        path = self.folder / f"{job}.log"
        path.write_text(log)
        about = {"jobid": job, "rule_name": "train", "log": [str(path)], "rule_msg": said}
        return self.hear("Error in rule train", event="job_error", **about)


@pytest.fixture
def heard(tmp_path: Path) -> Listening:
    return Listening(tmp_path)


def test_a_stage_that_refused_is_one_line_and_status_2(heard: Listening) -> None:
    heard.fails(1, "lockstep: something before\nlockstep: error: a.gz: damaged\nlast words\n")
    heard.fails(2, CRASHED)
    assert heard.outcome.lines() == [
        f"lockstep: error: a.gz: damaged (train: {heard.folder / '1.log'})",
        f"lockstep: error: RuntimeError: boom (train: {heard.folder / '2.log'})",
    ]
    assert heard.outcome.status == 2
    assert heard.stops == 0


def test_a_crash_alone_is_one_line_and_status_1(heard: Listening) -> None:
    heard.fails(1, CRASHED)
    heard.fails(2, "")
    assert heard.outcome.lines()[1].startswith("lockstep: error: it said nothing (train: ")
    assert heard.outcome.status == 1


def test_what_succeeds_at_last_has_not_failed(heard: Listening) -> None:
    heard.fails(1, CRASHED)
    heard.outcome.succeeded()  # Snakemake's `onsuccess`; whose quiet progress names no finished job
    assert (heard.outcome.lines(), heard.outcome.status) == ([], None)


def test_after_a_full_disk_nothing_further_is_started(heard: Listening) -> None:
    heard.fails(1, REFUSED)
    assert heard.stops == 1


def test_many_failures_are_counted(heard: Listening) -> None:
    for job in range(MOST + 3):
        heard.fails(job, CRASHED)
    assert len(heard.outcome.lines()) == MOST + 1
    assert heard.outcome.lines()[-1] == "lockstep: error: and 3 more jobs failed"


def test_an_interrupted_workflow_has_not_failed(heard: Listening) -> None:
    heard.fails(1, CRASHED)
    with pytest.raises(KeyboardInterrupt):
        heard.outcome.interrupt(2, None)
    assert heard.outcome.lines() == [
        "lockstep: stopped; the same command goes on from where it was"
    ]
    assert heard.outcome.status is None


def test_what_is_not_for_people_is_hidden(heard: Listening) -> None:
    assert not heard.hear("Execute 1 jobs...")
    assert heard.hear("Nothing to be done (all requested files are present and up to date).")
    assert heard.outcome.nothing_to_do


STOP = "epoch 1\nlockstep: a/1x1/seed-0 stopped at step {}; the next job goes on\n"


def test_a_planned_stop_is_no_failure_unless_it_brought_no_step(heard: Listening) -> None:
    heard.outcome.retries = 1
    for step in range(5):
        assert not heard.fails(1, STOP.format(step)), "it is shown as an error"
    assert (heard.outcome.lines(), heard.given_up) == ([], [])
    assert heard.fails(1, STOP.format(4))
    assert heard.fails(1, STOP.format(4))
    assert heard.given_up == [1]


def test_each_run_of_a_block_has_its_own_crashes(heard: Listening) -> None:
    heard.outcome.retries = 2
    for run in ("a", "b", "a", "b"):
        heard.fails(1, f"lockstep: {run} has failed: signal 9\nsrun: error: node2\n")
    heard.fails(1, "", said="SLURM status is: 'CANCELLED'. ")
    assert heard.given_up == []
    heard.fails(1, "lockstep: a has failed: ValueError: boom\n")
    assert heard.given_up == [1]
    assert heard.outcome.lines()[0].startswith("lockstep: error: a has failed: ValueError: boom (")
    assert heard.outcome.status == 1


def test_a_submission_that_is_refused_for_good_is_not_tried_again(heard: Listening) -> None:
    heard.outcome.retries = 5
    said = "SLURM sbatch failed. The error message was 'sbatch: error: QOSMax\nInvalid qos'.\n  …"
    assert not heard.fails(1, "", said=said)
    assert heard.given_up == [1]
    assert heard.outcome.lines() == [
        "lockstep: error: sbatch: error: QOSMax; Invalid qos (train was not submitted)"
    ]


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    kept = tmp_path / "runs" / "a.tmp"
    left = [tmp_path / "runs" / ".a.json.0123abcd.77.tmp", tmp_path / "rendezvous" / "f"]
    for path in (kept, *left):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    empty, going_on = (tmp_path / "checkpoints" / name / "1x1" for name in ("a", "b"))
    empty.mkdir(parents=True)
    (going_on / "step-1").mkdir(parents=True)
    (going_on / "step-1" / "state").touch()
    tidy(tmp_path)
    assert not empty.parent.exists()
    assert (going_on / "step-1" / "state").exists()
    assert kept.exists()
    assert not any(path.exists() for path in (*left, tmp_path / "rendezvous"))
