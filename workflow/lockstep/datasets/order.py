"""Which examples a step consumes: a pure function of (seed, epoch, step, global batch).

It does not depend on the framework, the world size, the workers or whether a run was resumed.
Where examples have several lengths (`buckets`), a batch is of examples of one of them, and so are
some batches in a row: a *stretch*. Stretches follow each other in an order of their own each epoch.
"""

import functools

import numpy as np

from lockstep.datasets import keys

STRETCH = 8  # batches of one length in a row: a window of several steps has equal shapes


class Order:
    """The order of a run's training examples.

    Attributes:
        steps_per_epoch: steps of one epoch.
    """

    def __init__(
        self,
        examples: int,
        global_batch: int,
        seed: int,
        drop_last: bool = False,
        buckets: np.ndarray | None = None,
    ) -> None:
        """Plan the epochs, all of which have as many batches of each length.

        Args:
            examples: in the training split.
            global_batch: examples a step, over all ranks.
            seed: of the run.
            drop_last: drop the incomplete last batch (of each length) instead of padding it.
            buckets: which length each example has, int64 ``(examples,)``; all one if None.
        """
        self.examples, self.global_batch, self.seed = examples, global_batch, seed
        self.buckets = buckets
        sizes = [examples] if buckets is None else np.bincount(buckets).tolist()
        rest = 0 if drop_last else global_batch - 1
        batches = [(size + rest) // global_batch for size in sizes]
        self.steps_per_epoch = sum(batches)
        longest = max(1, self.steps_per_epoch) if buckets is None else STRETCH
        self._stretches = [
            (bucket, first, min(longest, count - first))
            for bucket, count in enumerate(batches)
            for first in range(0, count, longest)
        ]
        # Of this epoch and the next one, which may be read ahead.
        self._examples = functools.lru_cache(maxsize=2)(self._in_order)

    def stretch(self, step: int) -> tuple[int, int, int]:
        """Return the stretch that a step is in: its bucket, its first step, and that behind it."""
        epoch, within = divmod(step, self.steps_per_epoch)
        (bucket, _, count), start = self._find(epoch, within)
        first = epoch * self.steps_per_epoch + start
        return bucket, first, first + count

    def batch(self, step: int) -> tuple[np.ndarray, int]:
        """Return a step's examples.

        Args:
            step: absolute, counted from 0 over all epochs.

        Returns:
            Indices, int64 ``(global_batch,)``, and how many of them are real: an incomplete batch
            is padded with its length's first example behind its real ones, and masked.
        """
        epoch, within = divmod(step, self.steps_per_epoch)
        (bucket, batch, _), start = self._find(epoch, within)
        own = self._examples(epoch)[bucket]
        first = (batch + within - start) * self.global_batch
        indices = own[first : first + self.global_batch]
        count = len(indices)
        if count < self.global_batch:
            padding = np.full(self.global_batch - count, own.min(), np.int64)
            indices = np.concatenate([indices, padding])
        return indices, count

    def _in_order(self, epoch: int) -> list[np.ndarray]:
        """Return the examples of each length in an epoch's order."""
        whole = keys.permutation(self.examples, "order", self.seed, epoch)
        if self.buckets is None:
            return [whole]
        own = self.buckets[whole]
        return [whole[own == bucket] for bucket in range(own.max() + 1)]

    def _find(self, epoch: int, within: int) -> tuple[tuple[int, int, int], int]:
        """Return a stretch (its bucket, the first of its batches, how many) and where it starts."""
        start = 0
        for k in _turns(len(self._stretches), self.seed, epoch):
            stretch = self._stretches[k]
            if within < start + stretch[2]:
                return stretch, start
            start += stretch[2]
        raise IndexError(within)


@functools.lru_cache(maxsize=2)
def _turns(stretches: int, seed: int, epoch: int) -> list[int]:
    return keys.permutation(stretches, "stretches", seed, epoch).tolist()


def in_turn(
    examples: int, batch: int, buckets: np.ndarray | None = None
) -> list[tuple[np.ndarray, int]]:
    """Return the batches of an evaluation: every example once, in order, the last one padded.

    Args:
        buckets: as in `Order`: then those of each length one after the other.
    """
    if buckets is None:
        parts = [np.arange(examples)]
    else:
        parts = [np.flatnonzero(buckets[:examples] == k) for k in range(buckets.max() + 1)]
    batches = []
    for own in parts:
        for start in range(0, len(own), batch):
            indices = np.full(batch, own[0])
            count = min(batch, len(own) - start)
            indices[:count] = own[start : start + count]
            batches.append((indices, count))
    return batches
