"""PyTorch's own loader: `DataLoader` with worker processes, in its own random order."""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from lockstep.datasets.reader import Examples
from lockstep.engines.part import Part


def batches(source: Examples, part: Part) -> Iterator[dict[str, np.ndarray]]:
    """Yield this rank's stored arrays of every step from `first_step` on.

    One loader for all epochs, as on JAX's side: none of them waits for workers to start.
    """
    loader: DataLoader = DataLoader(
        cast("Dataset", source),
        batch_sampler=cast("Any", _mine(len(source), part)),  # any iterable does
        num_workers=part.workers,
        collate_fn=_collate,
    )
    for arrays in loader:
        yield {name: array.numpy() for name, array in arrays.items()}


def _mine(examples: int, part: Part) -> Iterator[list[int]]:
    """Yield this rank's slice of each batch; that of an epoch's last one may be empty."""
    first_epoch, within = divmod(part.first_step, part.steps_per_epoch)
    for epoch in range(first_epoch, part.epochs):
        generator = torch.Generator().manual_seed(part.seed + epoch)
        order = torch.randperm(examples, generator=generator).tolist()
        for step in range(within, part.steps_per_epoch):
            start = step * part.global_batch + part.rank * part.local_batch
            yield order[start : start + part.local_batch]
        within = 0


def _collate(examples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    """Return a batch as PyTorch makes it, which needs at least one example."""
    return default_collate(examples) if examples else {"none": torch.empty(0)}
