"""How a workflow ends: one line for each stage that failed, after all that Snakemake prints.

It also decides what is tried again on a cluster. Snakemake counts the failures of a job: a planned
stop before the job's end is one to it, and the runs of a block share a job. So there a job has many
tries, and the crashes of each run are counted here.
"""

import contextlib
import logging
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from lockstep import files

PREFIX = "lockstep: error: "
FULL = ("no space left on device", "disk quota exceeded")
MOST = 5  # failures that are named one by one
REFUSED, FAILED = 2, 1  # exit statuses: a mistake that a person can mend, anything else
STOPPED = re.compile(r"lockstep: (\S+) stopped at step \d+")
CRASHED = re.compile(r"lockstep: (\S+) has failed: ")
NOT_SUBMITTED = re.compile(r"SLURM sbatch failed. The error message was '(.*?)'\.?\n", re.DOTALL)
MANY = 100_000  # tries of a job whose runs' crashes are counted here


class Outcome(logging.Filter):
    """Listens to what Snakemake logs.

    Attributes:
        stopped: whether a person interrupted the workflow.
        nothing_to_do: whether all that was asked for was there.
        retries: of a run that crashes; None where Snakemake's own count is meant.
    """

    def __init__(
        self,
        hidden: tuple[str, ...],
        stop: Callable[[], None],
        give_up: Callable[[int], None],
    ) -> None:
        """Begin to listen.

        Args:
            hidden: beginnings of messages that are not to be shown.
            stop: ends the workflow after the jobs that are running.
            give_up: has a job not tried again.
        """
        super().__init__()
        self.hidden, self.stop, self.give_up = hidden, stop, give_up
        self.retries: int | None = None
        self.stopped = self.nothing_to_do = False
        self._failures: dict[int, str] = {}  # by job; the newest attempt's
        self._stops: set[tuple[int, str]] = set()  # by job, with the line that told of it
        self._crashes: Counter[tuple[int, str]] = Counter()  # by job and run

    def filter(self, record: logging.LogRecord) -> bool:
        """Note what a record says; returns whether it is shown."""
        event, message = str(getattr(record, "event", "")), str(record.msg)
        if event.endswith("job_error"):
            return self._failed(record.__dict__)
        elif message.startswith("Nothing to be done"):
            self.nothing_to_do = True
        return not message.startswith(self.hidden)

    def _failed(self, job: dict) -> bool:
        """Note a failure; returns whether Snakemake is to show it."""
        number, said = job["jobid"], str(job.get("rule_msg"))
        log = next(iter(job["log"]), None)
        reason = _reason(Path(str(log))) if log else ""
        refused = NOT_SUBMITTED.search(said)
        if refused:
            text = "; ".join(line.removeprefix(PREFIX) for line in refused[1].splitlines())
            self._failures[number] = f"{PREFIX}{text} ({job['rule_name']} was not submitted)"
            self.give_up(number)
            return False
        stop = number, reason
        if self.retries is not None and STOPPED.match(reason) and stop not in self._stops:
            self._stops.add(stop)  # a second time, without a further step, it is a crash
            return False
        self._failures[number] = f"{reason or 'it said nothing'} ({job['rule_name']}: {log})"
        if any(words in reason.lower() for words in FULL):
            self.stop()  # other jobs would fail of the same, one after the other
        if self.retries is not None and "CANCELLED" not in said:
            crashed = CRASHED.match(reason)
            run = number, crashed[1] if crashed else ""
            self._crashes[run] += 1
            if self._crashes[run] > self.retries:
                self.give_up(number)
        return True

    def succeeded(self) -> None:
        """Forget attempts that failed: others made what was asked for."""
        self._failures.clear()

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Note Ctrl-C, and let it do what it does."""
        self.stopped = True
        signal.default_int_handler(number, frame)

    def lines(self) -> list[str]:
        """Return what there is to say at the end."""
        if self.stopped:
            return ["lockstep: stopped; the same command goes on from where it was"]
        own = (PREFIX, "lockstep: ")  # a finding of parity begins with the second
        failures = [
            PREFIX + text.removeprefix(own[0]).removeprefix(own[1])
            for text in self._failures.values()
        ]
        more = len(failures) - MOST
        return failures[:MOST] + ([f"{PREFIX}and {more} more jobs failed"] if more > 0 else [])

    @property
    def status(self) -> int | None:
        """Return the exit status; None for Snakemake's own."""
        if self.stopped or not self._failures:
            return None
        refused = any(text.startswith(PREFIX) for text in self._failures.values())
        return REFUSED if refused else FAILED

    def tell(self, leave: Callable[[int], None]) -> None:
        """Print the lines, and leave with a status that Snakemake cannot change."""
        sys.stdout.flush()
        for line in self.lines():
            print(line, file=sys.stderr, flush=True)
        if self.status is not None:
            leave(self.status)


def tidy(root: Path) -> None:
    """Remove what nobody needs of a study's results, none of whose jobs runs any more."""
    files.remove(root / "rendezvous")
    for folder, _, _ in os.walk(root / "checkpoints", topdown=False):
        with contextlib.suppress(OSError):  # what is in it is of a run that goes on
            Path(folder).rmdir()
    for folder, folders, names in os.walk(root):
        for name in filter(files.TEMPORARY.fullmatch, [*names, *folders]):
            files.remove(Path(folder, name))


def _reason(log: Path) -> str:
    """Return the last line that a job wrote, by preference one of ours."""
    try:
        with open(log, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 65536))
            lines = stream.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    said = [line.rstrip() for line in lines if line.strip()]
    beginnings = (PREFIX, "lockstep: parity FAILS: ")
    ours = [x for x in said if x.startswith(beginnings) or STOPPED.match(x) or CRASHED.match(x)]
    return (ours or said or [""])[-1]
