"""`tap`: how a function shows its intermediate values to `lockstep port`. It needs no package."""

import contextlib
from collections.abc import Iterator
from typing import Any, Protocol

IN, OUT = "input", "output"
TAP = "tap "  # before the name of a value that a model shows itself


class Listener(Protocol):
    """What `tap` speaks to."""

    def see(self, path: str, moment: str, value: Any) -> None:
        """Note a value."""


_listening: list[Listener] = []


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let `tap` speak to a listener."""
    _listening.append(listener)
    try:
        yield
    finally:
        _listening.pop()


def tap(name: str, value: Any) -> Any:
    """Show an intermediate value to `lockstep port`; returns it, and does nothing elsewhere.

    Values of one name on both sides are compared with each other. If the name is that of a module
    of the other side (``encoder.layer1``), the value is compared with that module's output.
    """
    for listener in _listening:
        listener.see(f"{TAP}{name}", OUT, value)
    return value
