"""`mnist_cnn` in Flax."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from lockstep.workloads import naming
from lockstep.workloads.layers_flax import Convolution, max_pool_2x2
from lockstep.workloads.mnist_cnn import spec
from lockstep.workloads.vision_flax import accuracy, cross_entropy, normalise

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
        x = nn.relu(nn.Dense(spec.HIDDEN, name="dense1", **kinds)(x))
        return nn.Dense(spec.CLASSES, name="dense2", **kinds)(x)


def build(
    model: Mapping[str, Any],
    *,
    dtype: DTypeLike,
    param_dtype: DTypeLike,
    convolution: str,
    devices: int,
) -> nn.Module:
    """Return the model; over how many devices a batch is split makes no difference to it."""
    return MnistCnn(dtype=dtype, param_dtype=param_dtype, convolution=convolution)


def inputs(batch: Mapping[str, Array], dtype: DTypeLike) -> Array:
    """Return what the model takes: images uint8 ``(B, 28, 28, 1)`` normalised."""
    return normalise(batch["images"], MEAN, STD, dtype)


def losses(logits: Array, batch: Mapping[str, Array], recipe: Mapping[str, Any]) -> Array:
    """Return each example's loss, ``(B,)``."""
    return cross_entropy(logits, batch["labels"], recipe["label_smoothing"])


def metrics(logits: Array, batch: Mapping[str, Array]) -> dict[str, Array]:
    """Return each example's share of each metric, ``(B,)``."""
    return {"accuracy": accuracy(logits, batch["labels"])}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to Flax's; the layouts are the same."""
    return {p.name: (f"params/{p.name.replace('.', '/')}", None) for p in spec.parameters(model)}
