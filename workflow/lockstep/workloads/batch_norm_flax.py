"""Batch normalisation over images in Flax, its statistics over a declared scope.

`global` takes the whole batch; `device` each device's own part of it, and the first device's part
for the running statistics. A compiled step over several devices is a program for one of them, which
is shown its part (`AXIS`); op by op the layer is shown the whole batch. Linen's own BatchNorm keeps
the biased variance and by default subtracts squares, which loses float32's digits.

Normalisation divides by the biased variance; the running variance takes the unbiased one, n/(n-1)
times as large, with momentum 0.1 for the new value: what `torch.nn.BatchNorm2d` does. Statistics
and the normalisation are computed in the parameters' type, also where the images are bfloat16.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.typing import DTypeLike

from lockstep.workloads.contract import AXIS

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
        part = AXIS in jax.sharding.get_abstract_mesh().manual_axes
        groups = self.devices if self.statistics == "device" and not part else 1
        x = x.reshape(groups, batch // groups, height, width, channels)
        mean = self._over_scope(x.mean((1, 2, 3), keepdims=True), part)
        centred = x - mean
        var = self._over_scope((centred * centred).mean((1, 2, 3), keepdims=True), part)
        n = x.size // (groups * channels)
        if part and self.statistics == "global":
            n *= self.devices
        first_mean = self._first(mean[0].reshape(channels), part)
        first_var = self._first(var[0].reshape(channels), part) * (n / (n - 1))
        running_mean.value = (1 - MOMENTUM) * running_mean.value + MOMENTUM * first_mean
        running_var.value = (1 - MOMENTUM) * running_var.value + MOMENTUM * first_var
        y = centred * (scale / jnp.sqrt(var + EPSILON)) + bias
        return y.reshape(images_bhwc.shape).astype(self.dtype)

    def _over_scope(self, mean: Array, part: bool) -> Array:
        """Return a mean over the whole batch where the scope is larger than what is seen."""
        return lax.pmean(mean, AXIS) if part and self.statistics == "global" else mean

    def _first(self, statistic: Array, part: bool) -> Array:
        """Return the first device's value, on all devices."""
        if not part or self.statistics == "global":
            return statistic
        own = lax.stop_gradient(statistic)
        return lax.psum(jnp.where(lax.axis_index(AXIS) == 0, own, jnp.zeros_like(own)), AXIS)
