"""Residual networks in Flax (`lockstep.workloads.resnet`)."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from lockstep.workloads import resnet
from lockstep.workloads.batch_norm_flax import BatchNorm
from lockstep.workloads.contract import Settings
from lockstep.workloads.layers_flax import Convolution, Dense, max_pool

Kinds = dict[str, Any]


def _convolution(layer: resnet.Layer, lowering: str, kinds: Kinds) -> Convolution:
    return Convolution(
        layer.outer,
        layer.size,
        stride=layer.stride,
        padding=layer.size // 2,
        use_bias=False,
        lowering=lowering,
        name=layer.name.split(".")[-1],
        **kinds,
    )


class _Block(nn.Module):
    """ReLU between a branch's layers, and after the shortcut is added."""

    block: resnet.Block
    statistics: str
    devices: int
    convolution: str
    dtype: DTypeLike
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        kinds: Kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def normalised(x: Array, layer: resnet.Layer) -> Array:
            x = _convolution(layer, self.convolution, kinds)(x)
            name = layer.norm.split(".")[-1]
            return BatchNorm(self.statistics, self.devices, name=name, **kinds)(x, train)

        y = x
        for layer in self.block.branch:
            y = normalised(y, layer)
            if not layer.last:
                y = nn.relu(y)
        return nn.relu(y + (normalised(x, self.block.shortcut) if self.block.shortcut else x))


class ResNet(nn.Module):
    """Images ``(B, H, W, 3)`` to logits ``(B, classes)``.

    Attributes:
        family, model: which network; `model` as pairs, since a module must be hashable.
        devices: over how many a batch is split.
        convolution: lowering of convolutions and pooling.
    """

    family: resnet.Family
    model: resnet.Model
    devices: int
    convolution: str
    dtype: DTypeLike
    param_dtype: DTypeLike

    @nn.compact
    def __call__(self, images_bhwc: Array, train: bool = True) -> Array:
        kinds: Kinds = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        first, scope = resnet.stem(self.family, self.model), self.model["batch_norm"]
        x = _convolution(first, self.convolution, kinds)(images_bhwc)
        x = nn.relu(BatchNorm(scope, self.devices, name=first.norm, **kinds)(x, train))
        if self.family.large_stem:
            x = max_pool(x, size=3, stride=2, padding=1, lowering=self.convolution)
        for block in resnet.blocks(self.family, self.model):
            module = _Block(block, scope, self.devices, self.convolution, name=block.name, **kinds)
            x = module(x, train)
        x = x.astype(self.param_dtype).mean((1, 2)).astype(self.dtype)
        return Dense(self.model["classes"], name="head", **kinds)(x)


def build(family: resnet.Family, model: resnet.Model, settings: Settings) -> nn.Module:
    """Return the model."""
    return ResNet(
        family=family,
        model={**model, "blocks": tuple(model["blocks"])},
        devices=settings.devices,
        convolution=settings.variant["convolution"],
        dtype=jnp.dtype(settings.dtype),
        param_dtype=jnp.dtype(settings.param_dtype),
    )
