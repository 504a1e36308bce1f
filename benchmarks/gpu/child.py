"""A child process of one framework, as the command's own process sees it."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NO_PREALLOCATION = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Otherwise JAX takes three quarters of a GPU's memory at once, whoever else needs some."""


class Failed(Exception):
    """A request came to nothing; the text says why."""


class Ended(Failed):
    """So it did, and the child is no more."""


class Child:
    """A process that answers requests (`benchmarks.gpu.worker`), one at a time.

    Attributes:
        started: when it was started (`time.time`).
    """

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        """Start it; what it prints goes to the end of `log`."""
        self.connection, there = Pipe()
        command = [sys.executable, "-m", "benchmarks.gpu.worker"]
        places = [str(ROOT / "workflow"), str(ROOT), os.environ.get("PYTHONPATH")]
        path = os.pathsep.join(filter(None, places))
        self.started = time.time()
        with open(log, "ab") as stream:
            self.process = subprocess.Popen(
                [*command, str(there.fileno()), str(os.getpid())],
                cwd=ROOT,
                env={**os.environ, **NO_PREALLOCATION, **environment, "PYTHONPATH": path},
                pass_fds=[there.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
            )
        there.close()

    def send(self, request: str, **arguments: Any) -> None:
        """Begin a request.

        Raises:
            Ended: the child is no more.
        """
        try:
            self.connection.send((request, arguments))
        except OSError as error:
            raise self._end() from error

    def answer(self, seconds: float) -> Any:
        """Wait for the answer to what was sent, at most so many seconds.

        Raises:
            Failed: the request failed; the child may be asked again.
            Ended: the child died, or did not answer in time and was ended.
        """
        try:
            if not self.connection.poll(max(0.0, seconds)):
                self.process.kill()
                self.close()
                raise Ended(f"no answer within {max(0.0, seconds):.0f} s")
            done, value = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._end() from error
        if not done:
            raise Failed(value)
        return value

    def ask(self, request: str, seconds: float, **arguments: Any) -> Any:
        """Send a request and wait for its answer."""
        self.send(request, **arguments)
        return self.answer(seconds)

    def _end(self) -> Ended:
        self.close()
        status = self.process.returncode
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        return Ended(f"the process ended {how}")

    def close(self) -> None:
        """End the child; its memory on the GPU is free when this returns."""
        self.connection.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
