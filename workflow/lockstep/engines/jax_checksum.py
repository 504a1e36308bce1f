"""`lockstep.datasets.checksum` in JAX, of a whole batch or a part of it."""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array, lax

from lockstep.datasets import checksum
from lockstep.engines.contract import Job

WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


class Checksum:
    """The checksum of a batch."""

    def __init__(self, job: Job) -> None:
        kinds = [checksum.places(job.shown(length)) for length in job.lengths]
        self.kinds = {checksum.elements(places): places for places in kinds}
        self.each = {
            kind: {name: place.each for name, place in places.items()}
            for kind, places in self.kinds.items()
        }
        self.names = list(kinds[0])
        self.slots = checksum.slot_coefficients(job.recipe["global_batch"])

    def __call__(self, batch: Mapping[str, Array]) -> Array:
        """Return it, uint32 ``()``, of a batch as the model is shown it."""
        rows = jnp.full(len(self.slots), jnp.uint32(checksum.ONE))
        kind = sum(batch[name].size for name in self.names) // len(self.slots)
        for name, place in self.kinds[kind].items():
            # Element by element: XLA needs half the time that it takes over bytes brought to words.
            flat = batch[name].reshape(len(self.slots), -1)
            if flat.dtype == jnp.bool_:
                flat = flat.astype(jnp.uint8)
            flat = lax.bitcast_convert_type(flat, WORDS[place.itemsize]).astype(jnp.uint32)
            rows = rows + (flat * self.each[kind][name]).sum(axis=1, dtype=jnp.uint32)
        real = batch["real"].astype(jnp.uint32)
        return (rows * self.slots * real).sum(dtype=jnp.uint32)
