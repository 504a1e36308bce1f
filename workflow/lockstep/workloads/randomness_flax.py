"""`lockstep.workloads.randomness` in JAX, on the device."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array, lax

from lockstep.workloads import randomness
from lockstep.workloads.randomness import FIRST_FACTOR, HALVES, SECOND_FACTOR, SHIFTS


def mix(words: Array) -> Array:
    """Return the hash of each word, uint32."""
    first, second, third = (jnp.uint32(shift) for shift in SHIFTS)
    words = (words ^ (words >> first)) * jnp.uint32(FIRST_FACTOR)
    words = (words ^ (words >> second)) * jnp.uint32(SECOND_FACTOR)
    return words ^ (words >> third)


def words(keys: Array, site: int, count: int) -> Array:
    """Return random words of a site, uint32 ``(B, count)``; keys are int32 or uint32 ``(B, 2)``."""
    keys = lax.bitcast_convert_type(keys, jnp.uint32)
    first = mix(keys[:, :1] ^ jnp.uint32(randomness.site_factor(site, 0)))
    second = mix(keys[:, 1:] + jnp.uint32(randomness.site_factor(site, 1)))
    index = jnp.arange(count, dtype=jnp.uint32)
    return mix(mix(index ^ first) ^ second)


def keep_mask(keys: Array, site: int, shape: Sequence[int], keep: float) -> Array:
    """Return which elements are kept, bool ``(B, *shape)``."""
    size = math.prod(shape)
    drawn = words(keys, site, -(-size // 2))
    halves = lax.bitcast_convert_type(drawn, jnp.int16).reshape(len(keys), -1)[:, :size]
    kept = halves <= jnp.int16(randomness.threshold(keep) - HALVES // 2 - 1)
    return kept.reshape(len(keys), *shape)


def dropout(x: Array, keys: Array, site: int, rate: float) -> Array:
    """Return `x` ``(B, …)`` with elements zeroed at random and the others scaled up.

    Types of 16 bits are scaled in float32 and rounded once: JAX would round the factor first.
    """
    if not rate:
        return x
    kept = keep_mask(keys, site, x.shape[1:], 1 - rate)
    factor = jnp.asarray(randomness.scale(1 - rate), jnp.promote_types(x.dtype, jnp.float32))
    return jnp.where(kept, (x * factor).astype(x.dtype), jnp.zeros((), x.dtype))


def integers(keys: Array, site: int, shape: Sequence[int], limit: int) -> Array:
    """Return uniform integers in ``[0, limit)``, int32 ``(B, *shape)``."""
    randomness.check_limit(limit)
    drawn = words(keys, site, math.prod(shape))
    half, ones = jnp.uint32(16), jnp.uint32(HALVES - 1)
    upper, lower = drawn >> half, drawn & ones
    high, low = (jnp.uint32(part) for part in divmod(limit, HALVES))
    middle = upper * low + ((lower * low) >> half)
    carried = (lower * high + (middle & ones)) >> half
    result = upper * high + (middle >> half) + carried
    return result.astype(jnp.int32).reshape(len(keys), *shape)
