"""Looks into the layers of a Flax model, and computes them in integers."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen
from jax import Array, lax

from lockstep.deploy.compress import KERNEL, LEVELS, SCALE, STEP
from lockstep.engines.jax_module import Linen
from lockstep.errors import UserError
from lockstep.workloads.weights import State

MOST = LEVELS["int8"]


@contextlib.contextmanager
def _replaced(
    engine: Any, kernels: Sequence[str], call: Callable[[str, Any, Array, Callable], Array]
) -> Iterator[None]:
    """Have `call` compute the layers of kernels, from name, module, inputs and their own call.

    Raises:
        UserError: the model is no Linen module, of whose layers JAX would tell nothing.
    """
    if not isinstance(engine.model, Linen):
        raise UserError("layers of a Flax NNX model are not computed in integers")
    paths = {
        engine.names[name][0].removeprefix("params/").rpartition("/")[0]: name for name in kernels
    }

    def intercept(own: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        name = paths.get("/".join(context.module.path))
        if name is None or context.method_name != "__call__":
            return own(*args, **kwargs)
        return call(name, context.module, args[0], own)

    with linen.intercept_methods(intercept):
        yield


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
def static(engine: Any, form: State, most: int) -> Iterator[dict[str, np.ndarray]]:
    """Compute layers in 8-bit integers while the block runs; yields their sums.

    Args:
        form: integers, their scales and the steps of activations.
        most: examples whose sums are kept, the first ones.

    Yields:
        The int32 sums of each layer, channels last, ``(examples, …)`` by the kernel's name.
    """
    kernels = [name.removeprefix(STEP) for name in form if name.startswith(STEP)]
    sums: dict[str, np.ndarray] = {}

    def compute(name: str, module: Any, x: Array, own: Callable) -> Array:
        kernel = jnp.asarray(form[KERNEL + name])
        inputs = jnp.clip(jnp.round(x / form[STEP + name]), -MOST, MOST).astype(jnp.int8)
        whole = _sums(inputs, kernel, module)
        if len(sums.get(name, ())) < min(most, len(whole)):
            sums[name] = np.asarray(whole[:most])
        y = whole.astype(x.dtype) * jnp.asarray(form[STEP + name] * form[SCALE + name])
        if module.has_variable("params", "bias"):
            y = y + module.get_variable("params", "bias")
        return y

    with _replaced(engine, kernels, compute):
        yield sums


def _sums(inputs: Array, kernel: Array, module: Any) -> Array:
    if kernel.ndim == 2:
        contracted = (((inputs.ndim - 1,), (0,)), ((), ()))
        return lax.dot_general(inputs, kernel, contracted, preferred_element_type=jnp.int32)
    stride, padding = module.stride, module.padding
    return lax.conv_general_dilated(
        inputs,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=jnp.int32,
    )
