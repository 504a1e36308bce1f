"""Dense layers, and convolution and max-pooling whose lowering is a choice, for Flax models.

`native` leaves both to XLA: right on a GPU. On a CPU XLA's convolutions are slow, their gradients
most of all, so `im2col` writes a convolution as one matrix product with the batch innermost:

    (in * kernel, out) transposed  @  (in * kernel, height * width * batch)

With the batch innermost every slice, shift, comparison and sum around the product is a contiguous
vector operation, whatever the number of channels; the transpositions between two such layers cost
nothing, XLA folds them into the layouts that it assigns. docs/performance.md has the measurements.
Which lowering a run used is part of its variant and of its record.

A bias is added in the parameters' type, also where the computation is in bfloat16: of one that is
cast before, the gradient would be summed in bfloat16, which loses a percent over a thousand rows.
PyTorch's autocast sums it in float32.
"""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.typing import DTypeLike

Pair = tuple[int, int]

_TO_BATCH_MINOR = (3, 1, 2, 0)  # (B, H, W, C) -> (C, H, W, B); the same permutation leads back
_TO_BATCH_MAJOR = (3, 1, 2, 0)


class Dense(nn.Module):
    """Rows ``(B, in)`` to ``(B, features)``, like `nn.Dense`."""

    features: int
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.zeros, shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        y = x.astype(self.dtype) @ kernel.astype(self.dtype)
        return _biased(y, bias)


class Convolution(nn.Module):
    """A 2-D convolution of NHWC images by a square HWIO kernel, like `nn.Conv`.

    Attributes:
        features: output channels.
        size: of the kernel, along height and width.
        stride: along height and width.
        padding: zeros on each of the four sides; never "SAME", which is asymmetric.
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
        bias = None
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
        convolve = {"native": _native, "im2col": _im2col}[self.lowering]
        x, kernel = images_bhwc.astype(self.dtype), kernel.astype(self.dtype)
        return convolve(x, kernel, bias, self.stride, self.padding)


def max_pool_2x2(x: Array, lowering: str) -> Array:
    """Return the maximum of each 2x2 square of NHWC images; an odd last row or column is dropped.

    Where several are largest the gradient goes to the first in row-major order, as in PyTorch.
    """
    if lowering == "native":
        return nn.max_pool(x, window_shape=(2, 2), strides=(2, 2))
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :height, :width].transpose(_TO_BATCH_MINOR)
    return _max_pool(x).transpose(_TO_BATCH_MAJOR)


def max_pool(x: Array, *, size: int, stride: int, padding: int, lowering: str) -> Array:
    """Return the maximum of each square of NHWC images, padded alike on all sides.

    Where several are largest the gradient goes to the first in row-major order, as in PyTorch.
    """
    around = ((padding, padding), (padding, padding))
    if lowering == "native":
        kernel, strides = (size, size), (stride, stride)
        return nn.max_pool(x, window_shape=kernel, strides=strides, padding=around)
    lowest = jnp.asarray(-jnp.inf, x.dtype)
    x = x.transpose(_TO_BATCH_MINOR)
    x = jnp.pad(x, ((0, 0), *around, (0, 0)), constant_values=lowest)
    taps = _patches(x, (size, size), stride)
    taps = taps.reshape(size * size, *taps.shape[2:])
    winner = lax.stop_gradient(taps).argmax(0)
    chosen = [jnp.where(winner == k, tap, jnp.zeros_like(tap)) for k, tap in enumerate(taps)]
    return functools.reduce(jnp.add, chosen).transpose(_TO_BATCH_MAJOR)


def _native(x: Array, kernel: Array, bias: Array | None, stride: int, padding: int) -> Array:
    y = lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y if bias is None else _biased(y, bias)


def _biased(y: Array, bias: Array) -> Array:
    """Return a sum in the bias's type, in that of `y`."""
    return (y.astype(bias.dtype) + bias).astype(y.dtype)


def _im2col(x: Array, kernel: Array, bias: Array | None, stride: int, padding: int) -> Array:
    rows, columns, inner, outer = kernel.shape
    x = x.transpose(_TO_BATCH_MINOR)
    if padding:
        x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    patches = _patches(x, (rows, columns), stride)
    y = lax.dot_general(
        kernel.reshape(rows * columns * inner, outer),
        patches.reshape(rows * columns * inner, -1),
        (((0,), (0,)), ((), ())),
    ).reshape(outer, *patches.shape[3:])
    if bias is not None:
        y = _biased(y, bias[:, None, None, None])
    # The barrier acts on the gradient that comes back: without it XLA pulls the transposition into
    # the sum for the bias, computes that gradient twice and once in strided order (twice the step).
    return lax.optimization_barrier(y).transpose(_TO_BATCH_MAJOR)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _patches(x: Array, window: Pair, stride: int) -> Array:
    """(C, H, W, B) -> (KH, KW, C, OH, OW, B): `x` as each of the kernel's taps sees it."""
    height, width = _output_size(x.shape, window, stride)

    def shifted(x: Array, axis: int, start: int, count: int) -> Array:
        return lax.slice_in_dim(x, start, start + (count - 1) * stride + 1, stride, axis)

    # Columns first, then rows: KW + KH slices, not KW * KH.
    x = jnp.stack([shifted(x, 2, j, width) for j in range(window[1])])
    return jnp.stack([shifted(x, 2, i, height) for i in range(window[0])])


def _patches_forward(x: Array, window: Pair, stride: int) -> tuple[Array, tuple[int, ...]]:
    return _patches(x, window, stride), x.shape


def _patches_backward(
    window: Pair, stride: int, shape: tuple[int, ...], gradient: Array
) -> tuple[Array]:
    """Add each tap's gradient to the pixels that it read, in place."""
    channels, height, width, batch = shape
    out_height, out_width = _output_size(shape, window, stride)
    # Row r is held at (r // stride, r % stride), so that what one tap read is one block.
    rows = max(-(-height // stride), (window[0] - 1) // stride + out_height)
    columns = max(-(-width // stride), (window[1] - 1) // stride + out_width)
    total = jnp.zeros((channels, rows, stride, columns, stride, batch), gradient.dtype)
    block = (channels, out_height, 1, out_width, 1, batch)
    for i in range(window[0]):
        for j in range(window[1]):
            start = (0, *divmod(i, stride), *divmod(j, stride), 0)
            so_far = lax.dynamic_slice(total, start, block)
            added = so_far + gradient[i, j].reshape(block)
            total = lax.dynamic_update_slice(total, added, start)
    total = total.reshape(channels, rows * stride, columns * stride, batch)
    return (total[:, :height, :width],)


_patches.defvjp(_patches_forward, _patches_backward)


def _output_size(shape: tuple[int, ...], window: Pair, stride: int) -> Pair:
    height, width = ((n - k) // stride + 1 for n, k in zip(shape[1:3], window))
    return height, width


def _corners(x: Array) -> list[Array]:
    return [x[:, i::2, j::2] for i in range(2) for j in range(2)]


@jax.custom_vjp
def _max_pool(x: Array) -> Array:
    a, b, c, d = _corners(x)
    return jnp.maximum(jnp.maximum(a, b), jnp.maximum(c, d))


def _max_pool_forward(x: Array) -> tuple[Array, Array]:
    a, b, c, d = _corners(x)
    top, bottom = jnp.maximum(a, b), jnp.maximum(c, d)
    winner = jnp.where(top >= bottom, jnp.where(a >= b, 0, 1), jnp.where(c >= d, 2, 3))
    return jnp.maximum(top, bottom), winner.astype(jnp.uint8)


def _max_pool_backward(winner: Array, gradient: Array) -> tuple[Array]:
    zero = jnp.zeros((), gradient.dtype)

    def spread(corner: int) -> Array:
        row, column = divmod(corner, 2)
        chosen = jnp.where(winner == corner, gradient, zero)
        around = ((0, 0, 0), (row, 1 - row, 1), (column, 1 - column, 1), (0, 0, 0))
        return lax.pad(chosen, zero, around)

    return (spread(0) + spread(1) + spread(2) + spread(3),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)
