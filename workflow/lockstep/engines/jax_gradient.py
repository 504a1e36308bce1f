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
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec

from lockstep.workloads.contract import AXIS

Tree = dict[str, Any]
Loss = Callable[[Tree, Tree, Tree, Tree], tuple[Array, tuple[Tree, Tree, Tree]]]
Gradient = Callable[[Tree, Tree, Tree, Tree], tuple[tuple[Tree, Tree, Tree], Tree]]

WHOLE, PART = PartitionSpec(), PartitionSpec(AXIS)


def of(loss: Loss, mesh: Mesh, compiled: bool, micro: int = 1) -> Gradient:
    """Return a function that gives buffers, outputs and terms of a loss, and its gradient.

    Args:
        loss: of trained parameters, what else the model has (with its `buffers`), a batch and
            numbers of the step, to a value and those three; compiled for several devices it is
            given one's part of the batch, and its values add up.
        mesh: of devices, along `AXIS`.
        compiled: whether the function is to be part of a compiled program.
        micro: micro-batches that a (part of a) batch is computed in.
    """
    own = _accumulated(jax.value_and_grad(loss, has_aux=True), micro)
    if mesh.size == 1 or not compiled:
        return own

    total = _as_one_vector if mesh.devices.flat[0].platform == "cpu" else _one_by_one

    def part(params: Tree, rest: Tree, batch: Tree, numbers: Tree) -> Any:
        # The device's own copy: or JAX sums gradients itself, before they reach their type.
        params = jax.tree.map(lambda p: lax.pcast(p, AXIS, to="varying"), params)
        (buffers, outputs, terms), grads = own(params, rest, batch, numbers)
        terms, grads = total((terms, grads))
        return (buffers, outputs, terms), grads

    return jax.shard_map(
        part,
        mesh=mesh,
        in_specs=(WHOLE, WHOLE, PART, WHOLE),
        out_specs=((WHOLE, PART, WHOLE), WHOLE),
    )


def _accumulated(own: Any, micro: int) -> Gradient:
    """Return the gradient of a batch in micro-batches, one after the other."""

    def gradient(params: Tree, rest: Tree, batch: Tree, numbers: Tree) -> Any:
        size = len(batch["real"]) // micro
        found: list[tuple[Tree, Tree, Tree]] = []
        for k in range(micro):
            part = {n: array[k * size : (k + 1) * size] for n, array in batch.items()}
            if micro == 1:
                part = batch
            (_, (buffers, outputs, terms)), grads = own(params, rest, part, numbers)
            rest = {**rest, "buffers": buffers}
            found.append((outputs, terms, grads))
        if micro == 1:
            return (rest["buffers"], *found[0][:2]), found[0][2]
        outputs = jax.tree.map(lambda *parts: jnp.concatenate(parts), *[f[0] for f in found])
        terms, grads = (
            jax.tree.map(lambda *parts: sum(parts[1:], parts[0]), *[f[k] for f in found])
            for k in (1, 2)
        )
        return (rest["buffers"], outputs, terms), grads

    return gradient


def _as_one_vector(parts: Any) -> Any:
    flat, apart = ravel_pytree(parts)
    return apart(lax.psum(flat, AXIS))


def _one_by_one(parts: Any) -> Any:
    """So that a sum can begin before the last gradient is there."""
    return jax.tree.map(lambda part: lax.psum(part, AXIS), parts)
