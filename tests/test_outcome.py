"""How a workflow ends, by what Snakemake logs of it."""

import logging
from pathlib import Path

import pytest

from lockstep.outcome import MOST, Outcome

REFUSED = (
    "lockstep: error: digits.h5: cannot be written, no space left on device; free some space\n"
)
CRASHED = "Traceback (most recent call last):\n  …\nRuntimeError: boom\n\n"


class Listening:
    """An outcome, and what it has heard."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.stops = folder, 0
        self.outcome = Outcome(("Execute ",), self.stop)

    def stop(self) -> None:
        self.stops += 1

    def hear(self, message: str, **more: object) -> bool:
        record = logging.LogRecord("snakemake", logging.INFO, "", 0, message, (), None)
        record.__dict__.update(more)
        return self.outcome.filter(record)

    def fails(self, job: int, log: str) -> None:
        path = self.folder / f"{job}.log"
        path.write_text(log)
        about = {"jobid": job, "rule_name": "train", "log": [str(path)]}
        assert self.hear("Error in rule train", event="job_error", **about)


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
