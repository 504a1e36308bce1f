"""Which examples a step consumes: a pure function of (seed, epoch, step, global batch).

It does not depend on the framework, the world size, the workers or whether a run was resumed.
"""

import functools
from dataclasses import dataclass

import numpy as np

from lockstep.datasets import keys


@dataclass(frozen=True)
class Order:
    """The order of a run's training examples.

    Attributes:
        examples: in the training split.
        global_batch: examples a step, over all ranks.
        seed: of the run.
        drop_last: drop an epoch's incomplete last batch instead of padding it.
    """

    examples: int
    global_batch: int
    seed: int
    drop_last: bool = False

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one epoch."""
        if self.drop_last:
            return self.examples // self.global_batch
        return -(-self.examples // self.global_batch)

    def batch(self, step: int) -> tuple[np.ndarray, int]:
        """Return a step's examples.

        Args:
            step: absolute, counted from 0 over all epochs.

        Returns:
            Indices, int64 ``(global_batch,)``, and how many of them are real: an incomplete batch
            is padded with index 0 behind its real examples, and the padding is masked.
        """
        epoch, within = divmod(step, self.steps_per_epoch)
        start = within * self.global_batch
        indices = _epoch(self.examples, self.seed, epoch)[start : start + self.global_batch]
        count = len(indices)
        if count < self.global_batch:
            indices = np.concatenate([indices, np.zeros(self.global_batch - count, np.int64)])
        return indices, count


@functools.lru_cache(maxsize=2)
def _epoch(examples: int, seed: int, epoch: int) -> np.ndarray:
    return keys.permutation(examples, "order", seed, epoch)


def in_turn(examples: int, batch: int) -> list[tuple[np.ndarray, int]]:
    """Return the batches of an evaluation: every example once, in order, the last one padded."""
    batches = []
    for start in range(0, examples, batch):
        indices = np.arange(start, start + batch)
        count = min(batch, examples - start)
        indices[count:] = 0
        batches.append((indices, count))
    return batches
