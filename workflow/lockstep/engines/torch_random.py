"""Random numbers for a model in PyTorch: those that both frameworks share, or its own dropout."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from lockstep.workloads import randomness_torch


class Random:
    """Random numbers of a batch's examples (`lockstep.workloads.contract`)."""

    def __init__(self, batch: Mapping[str, Tensor], *, train: bool, native: bool) -> None:
        """Take the examples' keys from a batch.

        Args:
            native: whether dropout takes PyTorch's own generator.
        """
        self._batch, self._train, self._native = batch, train, native

    def dropout(self, x: Tensor, site: int, rate: float) -> Tensor:
        """Return `x` ``(B, …)`` with elements zeroed at random; as it is in evaluation."""
        if not self._train or not rate:
            return x
        if self._native:
            return functional.dropout(x, rate)
        return randomness_torch.dropout(x, self._batch["key"], site, rate)

    def words(self, site: int, count: int) -> Tensor:
        """Return random words, int32 ``(B, count)``."""
        return randomness_torch.words(self._batch["key"], site, count)

    def integers(self, site: int, shape: Sequence[int], limit: int) -> Tensor:
        """Return uniform integers in ``[0, limit)``, int32 ``(B, *shape)``."""
        return randomness_torch.integers(self._batch["key"], site, shape, limit)


def seed(rank: int) -> None:
    """Seed PyTorch's own generator, which nothing but native dropout draws from."""
    torch.manual_seed(rank)
