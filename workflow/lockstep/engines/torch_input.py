"""PyTorch's own loader: `DataLoader` with worker processes, in its own random order."""

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lockstep.datasets.reader import Examples
from lockstep.engines.contract import Part


def batches(source: Examples, part: Part) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield this rank's images and labels of every step from `first_step` on."""
    first_epoch, within = divmod(part.first_step, part.steps_per_epoch)
    for epoch in range(first_epoch, part.epochs):
        generator = torch.Generator().manual_seed(part.seed + epoch)
        order = torch.randperm(len(source), generator=generator).tolist()
        loader: DataLoader = DataLoader(
            cast("Dataset", source),
            batch_sampler=_mine(order, part)[within:],
            num_workers=part.workers,
        )
        for images, labels in loader:
            yield images.numpy(), labels.numpy()
        within = 0


def _mine(order: list[int], part: Part) -> list[list[int]]:
    """Return this rank's slice of each of an epoch's batches; a last one may be empty."""
    offset = part.rank * part.local_batch
    starts = range(offset, part.steps_per_epoch * part.global_batch, part.global_batch)
    chunks = [order[start : start + part.local_batch] for start in starts]
    return [chunk for chunk in chunks if chunk]
