"""Signals and time budgets: a handler only sets a flag, ranks agree at a window's edge."""

import ctypes
import os
import signal
import sys
import time
from types import FrameType

INTERRUPTED = 75  # exit status: stopped at a checkpoint, start again to go on (EX_TEMPFAIL)
FAILED_RUN = 76  # exit status: the run itself failed and has its record (a NaN loss)
OUT_OF_MEMORY = 77  # exit status: host or device had no more of it

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)


class Interruption:
    """Whether this process was asked to stop, by a signal or by its time budget."""

    def __init__(self, deadline: float | None = None) -> None:
        """Install handlers.

        Args:
            deadline: time (of `time.time`) after which to stop; None for no budget.
        """
        self.deadline = deadline
        self.reason: str | None = None
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.reason = signal.Signals(number).name

    @property
    def requested(self) -> bool:
        """True once a signal came or the time budget is used up."""
        if self.reason is None and self.deadline is not None and time.time() > self.deadline:
            self.reason = "time budget"
        return self.reason is not None


def die_with_parent(parent: int | None = None) -> None:
    """Ask the kernel for SIGTERM when the launcher dies, however it dies (Linux only).

    Args:
        parent: the process that started this one: it may have died before we asked, of which the
            kernel tells nothing. None if that is not known.
    """
    if sys.platform.startswith("linux"):
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
