"""Looks into the layers of a Flax model, Linen or NNX, and computes them in integers."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax.numpy as jnp
from flax import linen
from jax import Array, lax

from lockstep.deploy.compress import KERNEL, LEVELS, SCALE, STEP, Sums
from lockstep.errors import UserError
from lockstep.workloads.weights import State

MOST = LEVELS["int8"]


def _replaced(
    engine: Any, kernels: Sequence[str], compute: Callable[[str, Any, Array, Callable], Array]
) -> AbstractContextManager[None]:
    """Have `compute` do the layers of kernels, from name, module, inputs and their own call."""
    natives = {name: engine.names[name][0].removeprefix("params/") for name in kernels}
    paths = {native.rpartition("/")[0]: name for name, native in natives.items()}

    def instead(path: str, module: Any, own: Callable, x: Array) -> Array:
        return compute(paths[path], module, x, own)

    replaced: AbstractContextManager[None] = engine.model.replaced(paths, instead)
    return replaced


@contextlib.contextmanager
def observed(engine: Any, kernels: Sequence[str]) -> Iterator[dict[str, float]]:
    """Note the largest input of each layer while the block runs, by its kernel's name."""
    largest: dict[str, float] = {}

    def see(name: str, module: Any, x: Array, own: Callable) -> Array:
        largest[name] = max(largest.get(name, 0.0), float(jnp.abs(x).max()))
        result: Array = own(x)
        return result

    with _replaced(engine, kernels, see):
        yield largest


@contextlib.contextmanager
def static(engine: Any, form: State) -> Iterator[Sums]:
    """Compute layers in 8-bit integers while the block runs; yields their sums.

    Args:
        form: integers, their scales and the steps of activations.
    """
    kernels = [name.removeprefix(STEP) for name in form if name.startswith(STEP)]
    sums = Sums()

    def compute(name: str, module: Any, x: Array, own: Callable) -> Array:
        kernel = jnp.asarray(form[KERNEL + name])
        inputs = jnp.clip(jnp.round(x / form[STEP + name]), -MOST, MOST).astype(jnp.int8)
        whole = _sums(name, inputs, kernel, module)
        sums.keep(name, whole)
        y = whole.astype(x.dtype) * jnp.asarray(form[STEP + name] * form[SCALE + name])
        bias = _bias(module)
        return y if bias is None else y + bias

    with _replaced(engine, kernels, compute):
        yield sums


def _sums(name: str, inputs: Array, kernel: Array, module: Any) -> Array:
    if kernel.ndim == 2:
        contracted = (((inputs.ndim - 1,), (0,)), ((), ()))
        return lax.dot_general(inputs, kernel, contracted, preferred_element_type=jnp.int32)
    if kernel.ndim != 4:
        raise UserError(f"{name} is of a {type(module).__name__}, which is not quantised")
    stride, padding = module.stride, module.padding
    return lax.conv_general_dilated(
        inputs,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=jnp.int32,
    )


def _bias(module: Any) -> Array | None:
    """Return a layer's bias, if it has one."""
    if isinstance(module, linen.Module):
        has = module.has_variable("params", "bias")
        return module.get_variable("params", "bias") if has else None
    found = getattr(module, "bias", None)
    return None if found is None else found[...]
