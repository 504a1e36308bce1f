"""Sums over the devices of a run, in JAX, for what looks at more than its own examples."""

import jax
from jax import Array, lax

from lockstep.workloads.contract import AXIS


def sum_over_ranks(x: Array) -> Array:
    """Return the sum of `x` over all devices; gradients are summed over them, too.

    Op by op, and on one device, the whole batch is seen: then `x` is of all of it.
    """
    part = AXIS in jax.sharding.get_abstract_mesh().manual_axes
    return lax.psum(x, AXIS) if part else x
