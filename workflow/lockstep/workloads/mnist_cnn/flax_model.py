"""`mnist_cnn` in Flax."""

import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from lockstep.workloads import naming, vision_flax
from lockstep.workloads.contract import Settings
from lockstep.workloads.layers_flax import Convolution, Dense, max_pool_2x2
from lockstep.workloads.mnist_cnn import spec
from lockstep.workloads.vision_flax import accuracy, normalise

MEAN, STD = (0.5,), (0.5,)


class MnistCnn(nn.Module):
    """Images ``(B, 28, 28, 1)`` to logits ``(B, 10)``.

    Attributes:
        dtype: of the computation.
        param_dtype: of the parameters.
        convolution: lowering of convolutions and pooling, `native` or `im2col`.
    """

    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32
    convolution: str = "native"

    @nn.compact
    def __call__(self, images_bhwc: Array, train: bool = True) -> Array:
        kinds: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = images_bhwc
        for layer, channels in enumerate(spec.CHANNELS, start=1):
            convolution = Convolution(
                channels, spec.KERNEL, lowering=self.convolution, name=f"conv{layer}", **kinds
            )
            x = max_pool_2x2(nn.relu(convolution(x)), self.convolution)
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(Dense(spec.HIDDEN, name="dense1", **kinds)(x))
        return Dense(spec.CLASSES, name="dense2", **kinds)(x)


def build(model: Mapping[str, Any], settings: Settings) -> nn.Module:
    """Return the model."""
    return MnistCnn(
        dtype=jnp.dtype(settings.dtype),
        param_dtype=jnp.dtype(settings.param_dtype),
        convolution=settings.variant["convolution"],
    )


augment = functools.partial(vision_flax.augment, spec.shape)
forward, loss = vision_flax.forward, vision_flax.loss


def inputs(batch: Mapping[str, Array], dtype: DTypeLike) -> dict[str, Array]:
    """Return a batch with its images normalised."""
    return {**batch, "image": normalise(batch["image"], MEAN, STD, dtype)}


def metrics(
    outputs: Mapping[str, Array], batch: Mapping[str, Array], recipe: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return each example's share of each metric, ``(B,)``; no columns."""
    return {"accuracy": accuracy(outputs["logits"], batch["label"])}, {}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to Flax's; the layouts are the same."""
    return {p.name: (f"params/{p.name.replace('.', '/')}", None) for p in spec.parameters(model)}
