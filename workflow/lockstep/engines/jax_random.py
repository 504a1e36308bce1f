"""Random numbers for a model in JAX: those that both frameworks share, or its own dropout."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax

from lockstep.workloads import randomness_flax


class Random:
    """Random numbers of a batch's examples (`lockstep.workloads.contract`)."""

    def __init__(self, batch: Mapping[str, Array], *, train: bool, native: bool) -> None:
        """Take the examples' keys from a batch.

        Args:
            native: whether dropout takes JAX's own generator.
        """
        self._batch, self._train, self._native = batch, train, native

    def dropout(self, x: Array, site: int, rate: float) -> Array:
        """Return `x` ``(B, …)`` with elements zeroed at random; as it is in evaluation."""
        if not self._train or not rate:
            return x
        if not self._native:
            return randomness_flax.dropout(x, self._batch["key"], site, rate)
        # A pure function of the batch: the sum of its keys, since JAX keeps no generator.
        words = lax.bitcast_convert_type(self._batch["key"], jnp.uint32).sum(0, dtype=jnp.uint32)
        key = jax.random.fold_in(jax.random.wrap_key_data(words, impl="threefry2x32"), site)
        # Of a float32: a Python number would draw 64 bits under x64.
        kept = jax.random.bernoulli(key, jnp.float32(1 - rate), x.shape)
        return jnp.where(kept, x / (1 - rate), jnp.zeros((), x.dtype)).astype(x.dtype)

    def words(self, site: int, count: int) -> Array:
        """Return random words, uint32 ``(B, count)``."""
        return randomness_flax.words(self._batch["key"], site, count)

    def integers(self, site: int, shape: Sequence[int], limit: int) -> Array:
        """Return uniform integers in ``[0, limit)``, int32 ``(B, *shape)``."""
        return randomness_flax.integers(self._batch["key"], site, shape, limit)
