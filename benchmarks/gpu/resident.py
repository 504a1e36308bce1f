"""Windows whose arrays lie on the device before they are trained."""

import dataclasses
from collections.abc import Generator, Sequence
from typing import Any

from lockstep.engines.contract import Window
from lockstep.training.feed import SharedFeed, Stage, edges


def place(engine: Any, window: Window) -> Window:
    """Return a window whose batch an engine need not copy to its device any more.

    Weights and learning rates, some bytes a step, stay on the host.
    """
    if engine.job.variant["framework"] == "jax":
        # `train` puts them there again, and JAX leaves an array where it is wanted.
        return dataclasses.replace(window, batch=engine.placement.put(window.batch, 1, ())[0])
    import torch

    copied = type(engine)._put

    def put(array: Any) -> torch.Tensor:
        return array if isinstance(array, torch.Tensor) else copied(engine, array)

    engine._put = put  # that takes NumPy arrays alone
    batch: dict[str, Any] = {name: put(array) for name, array in window.batch.items()}
    return dataclasses.replace(window, batch=batch)


class Feed:
    """The windows of one epoch, for every epoch."""

    def __init__(self, windows: Sequence[Window], feed: SharedFeed) -> None:
        self.kept, self.room = windows, feed.job.window_steps
        self.total_steps = feed.total_steps
        self.steps_per_epoch = feed.steps_per_epoch
        self.forward_flops = feed.forward_flops

    def windows(
        self, first: int, total: int, stage: Stage = lambda window: window
    ) -> Generator[Window, None, None]:
        """Yield the windows of a run of `total` steps from step `first` on, an epoch's start."""
        for step, _ in edges(first, total, self.steps_per_epoch, self.room):
            yield stage(self.kept[step % self.steps_per_epoch // self.room])

    def close(self) -> None:
        """Nothing to let go of."""
