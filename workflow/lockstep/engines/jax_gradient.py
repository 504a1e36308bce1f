"""The gradient of a batch that is spread over devices: each device's own part, then the sum.

Left to itself XLA sums over the mesh where the product over the batch is taken, in the type of the
computation: under bfloat16 the parts would be rounded to it again at every sum. PyTorch's processes
sum what each has brought to the parameters' type. So does this, by a program for one device that
states its sums; a layer that looks at more than its own examples states them too (`AXIS`).

XLA joins the sums of a program for GPUs, but not for CPUs: there each would be a meeting of all
processes, and eight of them took four times as long as the step. There they are one vector.

Op by op, each operation would be mapped by itself, which takes ten times as long: there XLA sums.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec

from lockstep.workloads.contract import AXIS

Tree = dict[str, Any]
Loss = Callable[[Tree, Tree, Tree, Array], tuple[Array, tuple[Tree, Array]]]
Gradient = Callable[[Tree, Tree, Tree, Array], tuple[tuple[Array, tuple[Tree, Array]], Tree]]

WHOLE, PART = PartitionSpec(), PartitionSpec(AXIS)


def of(loss: Loss, mesh: Mesh, compiled: bool) -> Gradient:
    """Return a function that gives a loss, with its buffers and logits, and its gradient.

    Args:
        loss: of parameters, buffers, a batch and the examples of the global batch; compiled
            for several devices it is given one's part of the batch, and its values add up.
        mesh: of devices, along `AXIS`.
        compiled: whether the function is to be part of a compiled program.
    """
    own = jax.value_and_grad(loss, has_aux=True)
    if mesh.size == 1 or not compiled:
        return own

    total = _as_one_vector if mesh.devices.flat[0].platform == "cpu" else _one_by_one

    def part(params: Tree, buffers: Tree, batch: Tree, count: Array) -> Any:
        # The device's own copy: or JAX sums gradients itself, before they reach their type.
        params = jax.tree.map(lambda p: lax.pcast(p, AXIS, to="varying"), params)
        (value, (buffers, logits)), grads = own(params, buffers, batch, count)
        value, grads = total((value, grads))
        return (value, (buffers, logits)), grads

    return jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(WHOLE, WHOLE, PART, WHOLE),
        out_specs=((WHOLE, (WHOLE, PART)), WHOLE),
    )


def _as_one_vector(parts: Any) -> Any:
    flat, apart = ravel_pytree(parts)
    return apart(lax.psum(flat, AXIS))


def _one_by_one(parts: Any) -> Any:
    """So that a sum can begin before the last gradient is there."""
    return jax.tree.map(lambda part: lax.psum(part, AXIS), parts)
