"""Looks into a Flax model: what its layers give, and the gradient of its inputs."""

import functools
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from lockstep.engines.contract import RATE, SITE, SPACING, STRIDE, WORDS
from lockstep.engines.jax_placement import local
from lockstep.engines.jax_random import Random
from lockstep.workloads import taps

if TYPE_CHECKING:
    from lockstep.engines.jax_engine import JaxEngine, Tree


def look(
    engine: "JaxEngine", params: "Tree", rest: "Tree", batch: "Tree", numbers: "Tree"
) -> dict[str, Array]:
    """Return samples of what the layers give and of inputs' gradients, on one device.

    Both are of inputs that are moved off their ties: where an image repeats itself, which of equal
    values a max-pooling takes is decided by how their sums happen to be rounded, and the gradient
    of the input goes there. (That of the weights is the same: what is equal saw equal pixels.)

    Args:
        batch: as the model is shown it.
        numbers: of the step.
    """
    paths = frozenset(engine.layers.values())
    inputs = engine.inputs({**batch, **numbers})
    made = {
        name: _moved(x)
        for name, x in inputs.items()
        if x is not batch.get(name)
        and name not in numbers
        and jnp.issubdtype(x.dtype, jnp.floating)
    }

    def loss(made: "Tree") -> tuple[Array, "Tree"]:
        called = engine.call(params, rest, {**inputs, **made}, train=True, layers=paths)
        terms = engine.terms(called.outputs, {**batch, **numbers}, numbers["weight"])
        return functools.reduce(jnp.add, terms.values()), called.layers

    gradients, outputs = jax.grad(loss, has_aux=True)(made)
    found = {f"input/{name}": _sampled(gradient) for name, gradient in gradients.items()}
    for name, path in engine.layers.items():
        if path in outputs:
            found[f"tap/{name}"] = _sampled(outputs[path])
    if "key" in batch:
        random = Random(batch, train=True, native=False)
        ones = jnp.ones((len(batch["key"]), WORDS), engine.param_dtype)
        words = random.words(SITE, WORDS)
        found["random/words"] = jax.lax.bitcast_convert_type(words, jnp.int32)
        found["random/kept"] = random.dropout(ones, SITE, RATE)
    return found


def told(engine: "JaxEngine", found: Any) -> dict[str, np.ndarray]:
    """Return what the engine's probe has computed, as `Engine.probe` does."""
    ((_, outputs, terms), grads), check, seen = found
    terms = {name: local(term).astype(np.float64) for name, term in terms.items()}
    # A compiled program returns a dictionary in the order of its keys.
    order = [*(k for k in seen if k.startswith(("input/", "random/")))]
    order += [f"tap/{name}" for name in engine.layers]

    def wide(array: Array) -> np.ndarray:
        own = local(array)  # NumPy has no bfloat16
        return own.astype(engine.param_dtype) if array.dtype == jnp.bfloat16 else own

    return {
        **{key: wide(seen[key]) for key in order if key in seen},
        **{f"output/{name}": wide(output) for name, output in outputs.items()},
        **{f"term/{name}": term for name, term in terms.items()},
        "checksum": local(check),
        "loss": np.sum(list(terms.values()), axis=0),
        **{f"grad/{name}": grad for name, grad in engine.to_neutral(grads).items()},
    }


def _moved(x: Array) -> Array:
    """Return an input whose elements are moved by up to 1/64, neighbours by different amounts."""
    steps = jnp.arange(x.size, dtype=jnp.int32) * STRIDE  # past 32 bits it wraps round
    return x + ((steps & 0xFFFF).astype(x.dtype) * SPACING).reshape(x.shape)


def _sampled(x: Array) -> Array:
    """Return a sample of an array, ``(n,)``."""
    return jnp.take(x.reshape(-1), taps.places(x.size, taps.SAMPLE), mode="clip")
