"""Looks into a Flax model: what its layers give, and the gradient of its input."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jax import Array

from lockstep.workloads import taps

if TYPE_CHECKING:
    from lockstep.engines.jax_engine import JaxEngine, Tree


def look(
    engine: "JaxEngine", params: "Tree", buffers: "Tree", batch: "Tree", count: Array
) -> dict[str, Array]:
    """Return samples of what the layers give and of the input's gradient, on one device.

    Args:
        batch: as the model is shown it.
        count: its real examples.
    """
    paths = set(engine.layers.values())

    def is_tap(module: Any, method: str) -> bool:
        return method == "__call__" and "/".join(module.path) in paths

    def loss(images: Array) -> tuple[Array, "Tree"]:
        logits, changed = engine.forward(
            params, buffers, images, train=True, capture_intermediates=is_tap
        )
        outputs = flatten_dict(dict(changed.get("intermediates", {})), sep="/")
        # Of a layer that is called more than once the last.
        return engine.mean_loss(logits, batch, count), {k: v[-1] for k, v in outputs.items()}

    images = engine.functions.inputs(batch, engine.param_dtype)
    gradient, outputs = jax.grad(loss, has_aux=True)(images)
    found = {"input/gradient": _sampled(gradient)}
    for name, path in engine.layers.items():
        if f"{path}/__call__" in outputs:
            found[f"tap/{name}"] = _sampled(outputs[f"{path}/__call__"])
    return found


def _sampled(x: Array) -> Array:
    """Return a sample of an array, ``(n,)``."""
    return jnp.take(x.reshape(-1), taps.places(x.size, taps.SAMPLE), mode="clip")
