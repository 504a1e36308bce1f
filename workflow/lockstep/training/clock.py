"""Where a run's time goes: seconds by phase, over all its attempts."""

import contextlib
import time
from collections.abc import Iterator

PHASES = (
    "import",  # from process start until the framework is there
    "staging",  # dataset opened and verified, weights or checkpoint loaded
    "trace",  # from Python to the compiler's input
    "compile",  # compilation, or first use where nothing is compiled
    "training",  # all windows, waiting for data included
    "data_wait",  # the part of training spent on getting batches
    "evaluation",
    "checkpoint",
)


class Clock:
    """Adds up seconds by phase."""

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0) | (seconds or {})
        self._begun: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Time a block of code as `phase`."""
        self._begun[phase] = time.perf_counter()
        try:
            yield
        finally:
            self.add(phase, time.perf_counter() - self._begun.pop(phase))

    def so_far(self) -> dict[str, float]:
        """Return seconds by phase, with what has passed of those that are being timed."""
        now = time.perf_counter()
        under_way = {phase: now - begun for phase, begun in self._begun.items()}
        return {name: value + under_way.get(name, 0.0) for name, value in self.seconds.items()}

    def add(self, phase: str, seconds: float) -> None:
        """Add seconds to a phase."""
        self.seconds[phase] += seconds
