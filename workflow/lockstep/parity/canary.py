"""Whether a step's checksum is that of what the model read: disturbed batches must show it.

Four steps without a learning rate are made of one batch: as it is, with one byte changed, with one
label changed, with two of its rows swapped. Each checksum must be the one of the definition
(`lockstep.datasets.checksum`), computed by NumPy of what the model is to be shown; and each loss
must be the other framework's, and another one than without the disturbance, or the model read
something else. (Swapped rows leave the loss: a sum does not know order.)
"""

from collections.abc import Iterator

import numpy as np

from lockstep.datasets import checksum
from lockstep.engines.contract import Engine, Job, Window
from lockstep.parity import DISTURBANCES
from lockstep.training.feed import SharedFeed
from lockstep.workloads import augmentation


def told(engine: Engine, feed: SharedFeed) -> Iterator[tuple[str, np.ndarray]]:
    """Yield `checksum` and `loss` of each disturbance, and the checksum that is `expected`."""
    window = feed.window(0, 1)
    rows = [_disturbed(window, feed.job, k) for k in range(len(DISTURBANCES))]
    losses, sums = [], []
    for row in rows:
        loss, found = engine.fetch(engine.train(row))
        losses.append(loss[0])
        sums.append(found[0])
    yield "checksum", np.array(sums, np.uint32)
    yield "expected", np.array([_expected(row, feed.job) for row in rows], np.uint32)
    yield "loss", np.array(losses)


def _disturbed(window: Window, job: Job, which: int) -> Window:
    batch = {name: array.copy() for name, array in window.batch.items()}
    images, labels = batch["images"][0], batch["labels"][0]
    slot = len(labels) // 2
    if which == 1:
        images[(slot, *_middle(batch, slot, job))] ^= 0x80
    elif which == 2:
        labels[slot] = (labels[slot] + 1) % (job.workload.classes(job.recipe["model"]) or 2)
    elif which == 3:
        for name in ("images", "labels", "crops"):
            if name in batch:
                batch[name][0][[0, slot]] = batch[name][0][[slot, 0]]
    rates = np.zeros_like(window.learning_rates)
    return Window(steps=1, batch=batch, counts=window.counts, learning_rates=rates)


def _middle(batch: dict[str, np.ndarray], slot: int, job: Job) -> tuple[int, ...]:
    """Return row, column and channel of a pixel that the model is shown."""
    height, width = job.stored_shape[:2]
    if "crops" not in batch:
        return (height // 2, width // 2, 0)
    top, left, tall, wide, _ = map(int, batch["crops"][0][slot])
    row, column = top + tall // 2, left + wide // 2
    return (min(max(row, 0), height - 1), min(max(column, 0), width - 1), 0)


def _expected(window: Window, job: Job) -> int:
    """Return the checksum of a window's first batch, by the definition."""
    images, labels = window.batch["images"][0], window.batch["labels"][0]
    size = job.example_shape[:2]
    if "crops" in window.batch:
        images = augmentation.apply(images, window.batch["crops"][0], size)
    else:
        top, left = augmentation.centre(job.stored_shape, size)
        images = images[:, top : top + size[0], left : left + size[1]]
    return checksum.checksum(images, labels, int(window.counts[0]))
