"""Layers whose lowering is a choice: convolution and max-pooling for Flax models.

XLA's CPU convolutions are slow (docs/performance.md). `im2col` gathers each output position's
patch and does one matrix product. Which one a run used is part of its variant and its record.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.typing import DTypeLike


class Convolution(nn.Module):
    """A 2-D convolution of NHWC images by a square HWIO kernel, with bias, like `nn.Conv`.

    Attributes:
        features: output channels.
        size: of the kernel, along height and width.
        stride: along height and width.
        padding: zeros on each side, the same on all four; never "SAME", which is asymmetric.
        lowering: `native` or `im2col`.
    """

    features: int
    size: int
    stride: int = 1
    padding: int = 0
    use_bias: bool = True
    lowering: str = "native"
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images_bhwc: Array) -> Array:
        shape = (self.size, self.size, images_bhwc.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.zeros, shape, self.param_dtype)
        x, kernel = images_bhwc.astype(self.dtype), kernel.astype(self.dtype)
        if self.padding:
            p = self.padding
            x = jnp.pad(x, ((0, 0), (p, p), (p, p), (0, 0)))
        y = {"native": _native, "im2col": _im2col}[self.lowering](x, kernel, self.stride)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
            y = y + bias.astype(self.dtype)
        return y


def _native(x: Array, kernel: Array, stride: int) -> Array:
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _im2col(x: Array, kernel: Array, stride: int) -> Array:
    rows, columns, inner, outer = kernel.shape
    height = (x.shape[1] - rows) // stride + 1
    width = (x.shape[2] - columns) // stride + 1
    patches = [
        x[:, i : i + stride * (height - 1) + 1 : stride, j : j + stride * (width - 1) + 1 : stride]
        for i in range(rows)
        for j in range(columns)
    ]
    gathered = jnp.concatenate(patches, axis=-1)
    return gathered @ kernel.reshape(rows * columns * inner, outer)


def max_pool_2x2(x: Array) -> Array:
    """Return the maximum of each 2x2 square of NHWC images, of even height and width.

    Where several are largest the gradient goes to the first, as in PyTorch.
    """
    pairs = _first_maximum(x[:, :, 0::2], x[:, :, 1::2])
    return _first_maximum(pairs[:, 0::2], pairs[:, 1::2])


def _first_maximum(a: Array, b: Array) -> Array:
    return jnp.where(a >= b, a, b)
