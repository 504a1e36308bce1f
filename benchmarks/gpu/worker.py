"""What a child process does: python -m benchmarks.gpu.worker FILE-DESCRIPTOR PARENT.

It answers a request by ``(True, value)`` or ``(False, why not)``. After a failure it lets go of
what it had and may be asked again: out of memory at one batch size says nothing of a smaller one.
"""

import contextlib
import gc
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.gpu import device, inputs, ladder
from benchmarks.gpu.trial import Trial
from lockstep.interruption import OUT_OF_MEMORY, die_with_parent
from lockstep.training.ending import status_of

LONGEST = 300  # characters of an error that are passed on; all of it is in the log


class Worker:
    """Holds at most one trial."""

    def __init__(self) -> None:
        self.trial: Trial | None = None

    def _trial(self) -> Trial:
        if self.trial is None:
            raise RuntimeError("no trial is open")
        return self.trial

    def requests(self) -> dict[str, Callable[..., Any]]:
        """Return what can be asked for."""
        return {
            "inputs": inputs.make,
            "device": device.seen,
            "climb": ladder.climbed,
            "open": self.open,
            "restart": lambda: self._trial().restart(),
            "epoch": lambda **settings: self._trial().epoch(**settings),
            "windows": lambda **settings: self._trial().windows(**settings),
            "memory": lambda: self._trial().memory(),
        }

    def open(self, **settings: Any) -> dict[str, Any]:
        """Make a trial ready for its first step."""
        self.close()
        self.trial = Trial(**settings)
        return self.trial.preparation

    def close(self) -> None:
        """Let go of the trial and of its memory."""
        self.trial = None
        gc.collect()
        if "torch" in sys.modules:  # it keeps memory for itself; the other framework wants some
            sys.modules["torch"].cuda.empty_cache()


def main() -> None:
    """Answer until the other end is closed."""
    die_with_parent(int(sys.argv[2]))
    worker = Worker()
    requests = worker.requests()
    with Connection(int(sys.argv[1])) as connection, contextlib.suppress(EOFError):
        while True:
            name, arguments = connection.recv()
            try:
                answer = (True, requests[name](**arguments))
            except Exception as error:
                traceback.print_exc()
                answer = (False, _in_a_line(error))
            if not answer[0]:
                worker.close()  # here, as the error held on to it
            connection.send(answer)


def _in_a_line(error: Exception) -> str:
    if status_of(error) == OUT_OF_MEMORY:
        return "out of memory"
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0] if lines else ''}"
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"


if __name__ == "__main__":
    main()
