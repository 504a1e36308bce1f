"""How a workflow ends: one line for each stage that failed, after all that Snakemake prints."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

PREFIX = "lockstep: error: "
FULL = ("no space left on device", "disk quota exceeded")
MOST = 5  # failures that are named one by one
REFUSED, FAILED = 2, 1  # exit statuses: a mistake that a person can mend, anything else


class Outcome(logging.Filter):
    """Listens to what Snakemake logs.

    Attributes:
        stopped: whether a person interrupted the workflow.
        nothing_to_do: whether all that was asked for was there.
    """

    def __init__(self, hidden: tuple[str, ...], stop: Callable[[], None]) -> None:
        """Begin to listen.

        Args:
            hidden: beginnings of messages that are not to be shown.
            stop: ends the workflow after the jobs that are running.
        """
        super().__init__()
        self.hidden, self.stop = hidden, stop
        self.stopped = self.nothing_to_do = False
        self._failures: dict[int, str] = {}  # by job; the newest attempt's

    def filter(self, record: logging.LogRecord) -> bool:
        """Note what a record says; returns whether it is shown."""
        event, message = str(getattr(record, "event", "")), str(record.msg)
        if event.endswith("job_error"):
            self._failed(record.__dict__)
        elif message.startswith("Nothing to be done"):
            self.nothing_to_do = True
        return not message.startswith(self.hidden)

    def _failed(self, job: dict) -> None:
        log = next(iter(job["log"]), None)
        reason = _reason(Path(str(log))) if log else ""
        self._failures[job["jobid"]] = f"{reason or 'it said nothing'} ({job['rule_name']}: {log})"
        if any(words in reason.lower() for words in FULL):
            self.stop()  # other jobs would fail of the same, one after the other

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


def _reason(log: Path) -> str:
    """Return the last line that a job wrote, by preference one of ours."""
    try:
        with open(log, "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 65536))
            lines = stream.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    said = [line.rstrip() for line in lines if line.strip()]
    ours = [line for line in said if line.startswith((PREFIX, "lockstep: parity FAILS: "))]
    return (ours or said or [""])[-1]
