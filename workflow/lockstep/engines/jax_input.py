"""The usual loader on JAX's side: Grain, with worker processes, in its own random order."""

from collections.abc import Iterator

import grain
import numpy as np
from absl import flags

from lockstep.datasets.reader import Examples
from lockstep.engines.part import Part
from lockstep.errors import UserError


def batches(source: Examples, part: Part) -> Iterator[dict[str, np.ndarray]]:
    """Yield this rank's stored arrays of every step from `first_step` on.

    Raises:
        UserError: an epoch's last batch leaves this rank without an example.
    """
    shuffled = grain.MapDataset.source(source).shuffle(seed=part.seed)
    epoch = shuffled[part.rank :: part.world_size].batch(part.local_batch)
    if len(epoch) < part.steps_per_epoch:
        raise UserError(
            f"input: native of JAX: the last batch of an epoch holds no example for rank "
            f"{part.rank} of {part.world_size}; set drop_last: true or choose another scale"
        )
    epochs = epoch[: part.steps_per_epoch].repeat(part.epochs)  # reshuffles each epoch
    loader = epochs[part.first_step :].to_iter_dataset()
    if part.workers:
        flags.FLAGS.mark_as_parsed()  # Grain's workers ask for command-line flags; there are none
        loader = loader.mp_prefetch(grain.MultiprocessingOptions(num_workers=part.workers))
    yield from loader
