"""Batch normalisation over images in Flax, its statistics over a declared scope.

`global` takes the whole batch, over which a mesh sums by itself; `device` each device's own part of
it, and the first device's part for the running statistics. Linen's own BatchNorm knows no such
scope, keeps the biased variance and by default subtracts squares, which loses float32's digits.

Normalisation divides by the biased variance; the running variance takes the unbiased one, n/(n-1)
times as large, with momentum 0.1 for the new value: what `torch.nn.BatchNorm2d` does. Statistics
and the normalisation are computed in the parameters' type, also where the images are bfloat16.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

MOMENTUM = 0.1
EPSILON = 1e-5


class BatchNorm(nn.Module):
    """Images ``(B, H, W, C)`` to the same shape, of `dtype`.

    Attributes:
        statistics: `global` or `device`.
        devices: over how many a batch is split.
    """

    statistics: str
    devices: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images_bhwc: Array, train: bool) -> Array:
        batch, height, width, channels = images_bhwc.shape
        scale = self.param("scale", nn.initializers.ones, (channels,), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
        kind = ((channels,), self.param_dtype)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, *kind)
        running_var = self.variable("batch_stats", "var", jnp.ones, *kind)
        x = images_bhwc.astype(self.param_dtype)
        if not train or self.is_initializing():
            inverse = scale / jnp.sqrt(running_var.value + EPSILON)
            return ((x - running_mean.value) * inverse + bias).astype(self.dtype)
        groups = self.devices if self.statistics == "device" else 1
        x = x.reshape(groups, batch // groups, height, width, channels)
        mean = x.mean((1, 2, 3), keepdims=True)
        centred = x - mean
        var = (centred * centred).mean((1, 2, 3), keepdims=True)
        n = x.size // (groups * channels)
        first_mean, first_var = mean[0].reshape(channels), var[0].reshape(channels) * (n / (n - 1))
        running_mean.value = (1 - MOMENTUM) * running_mean.value + MOMENTUM * first_mean
        running_var.value = (1 - MOMENTUM) * running_var.value + MOMENTUM * first_var
        y = centred * (scale / jnp.sqrt(var + EPSILON)) + bias
        return y.reshape(images_bhwc.shape).astype(self.dtype)
