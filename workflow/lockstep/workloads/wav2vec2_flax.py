"""`lockstep.workloads.wav2vec2` in Flax NNX: from a clip to what the last layer gives.

Convolutions over time are XLA's (`native`), or products with slices of their input (`im2col`):
on a CPU XLA's are slow, the grouped ones and gradients most of all.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from lockstep.datasets import framing
from lockstep.workloads import bert, wav2vec2
from lockstep.workloads.bert_flax import Dense, wide
from lockstep.workloads.contract import Settings


class Norm(nnx.Module):
    """Layer normalisation in float32 or better of what is float32 or better."""

    axis = -1

    def __init__(self, width: int, settings: Settings) -> None:
        self.scale = nnx.Param(jnp.ones((width,), settings.param_dtype))
        self.bias = nnx.Param(jnp.zeros((width,), settings.param_dtype))

    def __call__(self, x: Array) -> Array:
        centred = x - x.mean(axis=self.axis, keepdims=True)
        variance = jnp.square(centred).mean(axis=self.axis, keepdims=True)
        normal = centred * lax.rsqrt(variance + wav2vec2.EPSILON)
        return normal * self.scale[...] + self.bias[...]


class TimeNorm(Norm):
    """Group normalisation ``(B, T, C)``, a group a channel: over all frames of an example."""

    axis = 1


class Convolution(nnx.Module):
    """A convolution over time ``(B, T, in)`` to ``(B, (T - kernel) // stride + 1, out)``."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int, bias: bool, settings: Settings
    ) -> None:
        self.stride, self.lowering = stride, settings.variant["convolution"]
        self.kernel = nnx.Param(jnp.zeros((kernel, inputs, outputs), settings.param_dtype))
        self.bias = nnx.Param(jnp.zeros((outputs,), settings.param_dtype)) if bias else None

    def __call__(self, x: Array) -> Array:
        kernel = self.kernel[...].astype(x.dtype)
        y = wide(convolved(x, kernel, self.lowering, stride=self.stride))
        return y if self.bias is None else y + self.bias[...]


class Positions(nnx.Module):
    """A grouped convolution over time that keeps the length, ``(B, T, H)`` to ``(B, T, H)``."""

    def __init__(self, shape: wav2vec2.Size, settings: Settings) -> None:
        self.groups, self.lowering = shape.groups, settings.variant["convolution"]
        direction = (shape.kernel, shape.width // shape.groups, shape.width)
        self.direction = nnx.Param(jnp.ones(direction, settings.param_dtype))
        self.magnitude = nnx.Param(jnp.ones((shape.kernel,), settings.param_dtype))
        self.bias = nnx.Param(jnp.zeros((shape.width,), settings.param_dtype))

    def __call__(self, x: Array) -> Array:
        norm = jnp.sqrt(jnp.square(self.direction[...]).sum(axis=(1, 2)))
        kernel = self.direction[...] * (self.magnitude[...] / norm)[:, None, None]
        # As long as before: of an even kernel's frames the last one is dropped.
        size = len(kernel)
        around = (size // 2, size - 1 - size // 2)
        padded = jnp.pad(x, ((0, 0), around, (0, 0)))
        y = convolved(padded, kernel.astype(x.dtype), self.lowering, groups=self.groups)
        return wide(y) + self.bias[...]


def convolved(x: Array, kernel: Array, lowering: str, *, stride: int = 1, groups: int = 1) -> Array:
    """Return a convolution over time without padding.

    Args:
        x: ``(B, T, in)``.
        kernel: ``(time, in / groups, out)``.
        lowering: `native` or `im2col`.
    """
    if lowering == "native":
        return lax.conv_general_dilated(
            x,
            kernel,
            (stride,),
            "VALID",
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=groups,
        )
    size, inner, outer = kernel.shape
    count = (x.shape[1] - size) // stride + 1
    taps = [
        lax.slice_in_dim(x, k, k + (count - 1) * stride + 1, stride, axis=1) for k in range(size)
    ]
    if groups == 1:
        return jnp.concatenate(taps, axis=2) @ kernel.reshape(size * inner, outer)
    apart = jnp.stack(taps, axis=2).reshape(len(x), count, size, groups, inner)
    y = jnp.einsum("btkgi,kigo->btgo", apart, kernel.reshape(size, inner, groups, -1))
    return y.reshape(len(x), count, outer)


class Layer(nnx.Module):
    """Attention, then two dense layers: ``(B, T, H)`` to ``(B, T, H)``."""

    def __init__(self, number: int, model: Mapping[str, Any], settings: Settings) -> None:
        shape = wav2vec2.size(model)
        self.number, self.heads, self.before = number, shape.heads, model["family"] == "layer"
        self.rate, self.inner_rate = model["dropout"], model["activation_dropout"]
        self.attention_rate = model["attention_dropout"]
        self.dtype = jnp.dtype(settings.dtype)
        self.fused = bert.fused(model, settings)
        for name in ("query", "key", "value"):
            setattr(self, name, Dense(shape.width, shape.width, settings))
        self.attended = Dense(shape.width, shape.width, settings)
        self.attended_norm = Norm(shape.width, settings)
        self.inner = Dense(shape.width, shape.inner, settings)
        self.outer = Dense(shape.inner, shape.width, settings)
        self.outer_norm = Norm(shape.width, settings)

    def __call__(self, x: Array, found: Array, random: Any) -> Array:
        x = self._added(x, self.attended_norm, lambda x: self._attention(x, found, random))
        return self._added(x, self.outer_norm, lambda x: self._dense(x, random))

    def _added(self, x: Array, norm: nnx.Module, branch: Any) -> Array:
        """Return `x` and a branch, normalised before it or after their sum."""
        if self.before:
            return (wide(x) + wide(branch(norm(wide(x)).astype(self.dtype)))).astype(self.dtype)
        return norm(wide(x) + wide(branch(x))).astype(self.dtype)

    def _dense(self, x: Array, random: Any) -> Array:
        x = jax.nn.gelu(self.inner(x), approximate=False).astype(self.dtype)
        x = random.dropout(x, wav2vec2.site(self.number, wav2vec2.INNER), self.inner_rate)
        site = wav2vec2.site(self.number, wav2vec2.OUTER)
        return random.dropout(self.outer(x).astype(self.dtype), site, self.rate)

    def _attention(self, x: Array, found: Array, random: Any) -> Array:
        query, key, value = (
            getattr(self, name)(x).astype(self.dtype).reshape(*x.shape[:2], self.heads, -1)
            for name in ("query", "key", "value")
        )
        if self.fused:
            y = jax.nn.dot_product_attention(query, key, value, key_value_seq_lengths=found)
        else:
            scores = wide(jnp.einsum("bqhd,bkhd->bhqk", query, key)) * query.shape[3] ** -0.5
            real = jnp.arange(x.shape[1]) < found[:, None, None, None]
            scores = jnp.where(real, scores, jnp.finfo(scores.dtype).min)
            shares = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
            site = wav2vec2.site(self.number, wav2vec2.PROBABILITIES)
            shares = random.dropout(shares, site, self.attention_rate)
            y = jnp.einsum("bhqk,bkhd->bqhd", shares, value)
        y = self.attended(y.reshape(x.shape)).astype(self.dtype)
        return random.dropout(y, wav2vec2.site(self.number, wav2vec2.ATTENDED), self.rate)


class Trunk(nnx.Module):
    """What Wav2Vec2 models begin with; they inherit its parameters' names."""

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        shape, self.layered = wav2vec2.size(model), model["family"] == "layer"
        self.rate, self.dtype = model["dropout"], jnp.dtype(settings.dtype)
        channels, inputs = shape.channels, (1, *[shape.channels] * (len(wav2vec2.KERNELS) - 1))
        self.convs = nnx.List(
            [
                Convolution(before, channels, kernel, stride, self.layered, settings)
                for before, kernel, stride in zip(inputs, wav2vec2.KERNELS, wav2vec2.STRIDES)
            ]
        )
        kinds = [Norm] * len(self.convs) if self.layered else [TimeNorm]
        self.conv_norms = nnx.List([kind(channels, settings) for kind in kinds])
        self.projection_norm = Norm(channels, settings)
        self.projection = Dense(channels, shape.width, settings)
        blank = jnp.zeros((shape.width,), settings.param_dtype)
        self.masked = nnx.Param(blank) if model["mask_percent"] else None
        self.positions = Positions(shape, settings)
        self.encoder_norm = Norm(shape.width, settings)
        self.layers = nnx.List([Layer(n, model, settings) for n in range(shape.layers)])

    def encode(self, audio: Array, samples: Array, mask: Array | None, random: Any) -> Array:
        """Return what the last layer gives, of the computation's type ``(B, T, H)``.

        Args:
            audio: normalised samples, 0 behind the last one, ``(B, S)``.
            samples: of each clip, int32 ``(B,)``.
            mask: 1 for frames that are masked, uint8 ``(B, T)``; none if None.
        """
        x = self._features(audio)
        x = self.projection(self.projection_norm(wide(x)).astype(self.dtype)).astype(self.dtype)
        x = random.dropout(x, wav2vec2.PROJECTED, self.rate)
        if mask is not None and self.masked is not None:
            x = jnp.where(mask[:, :, None] > 0, self.masked[...].astype(x.dtype), x)
        found = framing.count(samples)
        x = jnp.where((jnp.arange(x.shape[1]) < found[:, None])[:, :, None], x, 0)
        x = wide(x) + jax.nn.gelu(self.positions(x), approximate=False)
        if not self.layered:
            x = self.encoder_norm(x)
        x = random.dropout(x.astype(self.dtype), wav2vec2.SUMMED, self.rate)
        for layer in self.layers:
            x = layer(x, found, random)
        return self.encoder_norm(wide(x)).astype(self.dtype) if self.layered else x

    def _features(self, audio: Array) -> Array:
        """Return the convolutions' features, ``(B, T, C)``."""
        x = audio[:, :, None].astype(self.dtype)
        for k, convolution in enumerate(self.convs):
            x = convolution(x)
            if k < len(self.conv_norms):
                x = self.conv_norms[k](x)
            x = jax.nn.gelu(x, approximate=False).astype(self.dtype)
        return x
