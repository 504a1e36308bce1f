"""Passes signals on to processes that this one starts, and leaves none of them behind."""

import contextlib
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType

from lockstep.interruption import SIGNALS


class Relay:
    """Processes, and the signals that this one got since it began to start them."""

    def __init__(self) -> None:
        self.children: list[subprocess.Popen] = []
        self._passed: list[tuple[int, int]] = []  # each signal, and how many children it went to

    def start(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen:
        """Start a process; what came before it could be reached is passed on to it now."""
        child = subprocess.Popen(command, env=environment)
        self.children.append(child)
        for number, reached in self._passed:
            if reached < len(self.children):
                child.send_signal(number)
        return child

    @property
    def interrupted(self) -> bool:
        """Whether a signal came."""
        return bool(self._passed)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on to all children; also comes in the middle of `start`."""
        reached = self.children.copy()
        self._passed.append((number, len(reached)))
        for child in reached:
            child.send_signal(number)  # nothing, to one that has ended

    def end(self) -> None:
        """Kill what is left."""
        for child in self.children:
            if child.poll() is None:
                child.kill()
        for child in self.children:
            child.wait()


@contextlib.contextmanager
def relay() -> Iterator[Relay]:
    """Pass signals on as long as the block runs, and end what it started."""
    made = Relay()
    previous = {number: signal.signal(number, made.handle) for number in SIGNALS}
    try:
        yield made
    finally:
        made.end()
        for number, handler in previous.items():
            signal.signal(number, handler)
