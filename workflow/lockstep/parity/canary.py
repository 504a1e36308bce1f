"""Whether a step's checksum is that of what the model read: disturbed batches must show it.

Steps without a learning rate are made of one batch: as it is, with one element of each array
changed, with two of its rows swapped. Each checksum must be the one of the definition
(`lockstep.datasets.checksum`), computed by NumPy of what the model is to be shown; and each loss
must be the other framework's, and another one than without the disturbance, or the model read
something else. (Swapped rows leave the loss: a sum does not know order.)
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from lockstep.datasets import checksum
from lockstep.engines.contract import Engine, Job, Window, at_rate, made
from lockstep.parity import SWAPPED, UNDISTURBED
from lockstep.training.feed import SharedFeed
from lockstep.workloads.contract import Array


def told(engine: Engine, feed: SharedFeed) -> Iterator[tuple[str, np.ndarray]]:
    """Yield `checksum`, `expected` and `loss` of each disturbance."""
    window = at_rate(feed.window(0, 1), 0.0)
    shown = feed.job.shown()
    slot = _slot(feed)
    for which in (UNDISTURBED, *(f"another {name}" for name in shown), SWAPPED):
        row = _disturbed(window, feed.job, which, slot)
        losses, sums = made(engine, row)
        yield f"checksum/{which}", np.array(sums[0])
        yield f"expected/{which}", np.array(_expected(row, feed.job), np.uint32)
        yield f"loss/{which}", losses[0]


def _slot(feed: SharedFeed) -> int:
    """Return the place in the first batch, near its middle, of an example that the loss reads."""
    indices, count = feed.order.batch(0)
    read = np.flatnonzero(feed.units(indices[:count]))
    return int(read[np.abs(read - len(indices) // 2).argmin()])


def _disturbed(window: Window, job: Job, which: str, slot: int) -> Window:
    batch = {name: array.copy() for name, array in window.batch.items()}
    described = {array.name: array for array in job.arrays(length=window.length)}
    # What draws decide is as in a blank example, so that the changed element is shown.
    covering = {name for name, array in described.items() if array.covers}
    for name in (described.keys() - job.shown().keys()) | covering:
        batch[name] = described[name].blanks(*batch["real"].shape)
    if which == SWAPPED:
        for name in described:
            batch[name][0][[0, slot]] = batch[name][0][[slot, 0]]
    elif which != UNDISTURBED:
        array = described[which.removeprefix("another ")]
        place = (0, slot, *(array.probe or (0,) * len(array.shape)))
        batch[array.name][place] = _other(array, batch[array.name][place])
    return Window(**{**vars(window), "batch": batch})


def _other(array: Array, value: np.generic) -> Any:
    """Return another value that an element may have, half of all away."""
    if array.dtype in ("float32", "bool"):
        return not value if array.dtype == "bool" else 1 - float(value)
    high = array.high or 1 << 8 * np.dtype(array.dtype).itemsize
    return np.array((int(value) + high // 2) % high).astype(array.dtype)[()]


def _expected(window: Window, job: Job) -> int:
    """Return the checksum of a window's first batch, by the definition."""
    batch = {array.name: window.batch[array.name][0] for array in job.arrays()}
    shown = job.workload.shown(batch, job.recipe, job.data)
    return checksum.checksum(dict(shown), int(window.examples[0]))
