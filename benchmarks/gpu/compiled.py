"""How many programs a framework compiles: none should be, once a training goes."""

from typing import Any

EVENT = "/jax/core/compile/backend_compile_duration"


class Counter:
    """Counts from now on.

    In JAX every program that XLA compiles, those of single operations outside of a compiled step
    too, and also one that comes from the persistent cache; in PyTorch every graph that Dynamo
    hands to a compiler.
    """

    def __init__(self, framework: str) -> None:
        self.framework = framework
        self.heard = self.before = 0
        if framework == "jax":
            import jax

            jax.monitoring.register_event_duration_secs_listener(self._hear)
        self.since()

    def _hear(self, event: str, duration_secs: float, **_: Any) -> None:
        self.heard += event == EVENT

    def since(self) -> int:
        """Return how many there were since this was called last."""
        count = self.heard
        if self.framework == "torch":
            import torch._dynamo.utils

            count = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        new, self.before = count - self.before, count
        return new
