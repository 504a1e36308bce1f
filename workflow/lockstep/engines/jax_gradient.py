"""The gradient of a batch that is spread over devices: each device's own part, then the sum.

Left to itself XLA sums over the mesh where the product over the batch is taken, in the type of the
computation: under bfloat16 the parts would be rounded to it again at every sum. PyTorch's processes
sum what each has brought to the parameters' type. So does this, by a program for one device that
states its sums; a layer that looks at more than its own examples states them too (`AXIS`).

Op by op, each operation would be mapped by itself, which takes ten times as long: there XLA sums.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax
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

    def part(params: Tree, buffers: Tree, batch: Tree, count: Array) -> Any:
        # The device's own copy: or JAX sums gradients itself, before they reach their type.
        params = jax.tree.map(lambda p: lax.pcast(p, AXIS, to="varying"), params)
        (value, (buffers, logits)), grads = own(params, buffers, batch, count)
        # One by one, so that a sum can begin before the last gradient is there.
        grads = jax.tree.map(lambda g: lax.psum(g, AXIS), grads)
        return (lax.psum(value, AXIS), (buffers, logits)), grads

    return jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(WHOLE, WHOLE, PART, WHOLE),
        out_specs=((WHOLE, (WHOLE, PART)), WHOLE),
    )
