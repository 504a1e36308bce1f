"""`lockstep.workloads.bert` in Flax NNX: embeddings and layers, which both BERT workloads share."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from lockstep.workloads import bert
from lockstep.workloads.contract import Settings


class Dense(nnx.Module):
    """A dense layer whose bias is added in float32 or better, and whose result has that type."""

    def __init__(self, inputs: int, outputs: int, settings: Settings) -> None:
        self.kernel = nnx.Param(jnp.zeros((inputs, outputs), settings.param_dtype))
        self.bias = nnx.Param(jnp.zeros((outputs,), settings.param_dtype))

    def __call__(self, x: Array) -> Array:
        return wide(x @ self.kernel[...].astype(x.dtype)) + self.bias[...]


class Norm(nnx.Module):
    """Layer normalisation in float32 or better of what is float32 or better."""

    def __init__(self, width: int, settings: Settings) -> None:
        self.scale = nnx.Param(jnp.ones((width,), settings.param_dtype))
        self.bias = nnx.Param(jnp.zeros((width,), settings.param_dtype))

    def __call__(self, x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        return centred * jax.lax.rsqrt(variance + bert.EPSILON) * self.scale[...] + self.bias[...]


class Embedding(nnx.Module):
    """A table of vectors, looked up in the parameters' type."""

    def __init__(self, rows: int, width: int, settings: Settings) -> None:
        self.embedding = nnx.Param(jnp.zeros((rows, width), settings.param_dtype))

    def __call__(self, ids: Array) -> Array:
        return self.embedding[...].at[ids].get(mode="promise_in_bounds")


class Layer(nnx.Module):
    """Attention, then two dense layers: ``(B, S, H)`` to ``(B, S, H)``."""

    def __init__(self, number: int, model: Mapping[str, Any], settings: Settings) -> None:
        shape = bert.size(model)
        self.number, self.heads = number, shape.heads
        self.rate, self.attention_rate = model["dropout"], model["attention_dropout"]
        self.dtype = jnp.dtype(settings.dtype)
        self.fused = bert.fused(model, settings)
        for name in ("query", "key", "value", "attended"):
            setattr(self, name, Dense(shape.width, shape.width, settings))
        self.attended_norm = Norm(shape.width, settings)
        self.inner = Dense(shape.width, shape.inner, settings)
        self.outer = Dense(shape.inner, shape.width, settings)
        self.outer_norm = Norm(shape.width, settings)

    def __call__(self, x: Array, lengths: Array | None, random: Any) -> Array:
        x = self._added("attended", self._attention(x, lengths, random), x, bert.ATTENDED, random)
        inner = jax.nn.gelu(self.inner(x), approximate=False).astype(self.dtype)
        return self._added("outer", inner, x, bert.OUTER, random)

    def _added(self, name: str, branch: Array, x: Array, place: int, random: Any) -> Array:
        """Return what a branch's last dense layer adds to `x`, normalised."""
        site = bert.site(self.number, place)
        branch = random.dropout(getattr(self, name)(branch).astype(self.dtype), site, self.rate)
        return getattr(self, f"{name}_norm")(wide(branch) + wide(x)).astype(self.dtype)

    def _attention(self, x: Array, lengths: Array | None, random: Any) -> Array:
        query, key, value = (
            getattr(self, name)(x).astype(self.dtype).reshape(*x.shape[:2], self.heads, -1)
            for name in ("query", "key", "value")
        )
        if self.fused:
            result = jax.nn.dot_product_attention(query, key, value, key_value_seq_lengths=lengths)
            return result.reshape(x.shape)
        scores = wide(jnp.einsum("bqhd,bkhd->bhqk", query, key)) * query.shape[3] ** -0.5
        if lengths is not None:
            real = jnp.arange(x.shape[1]) < lengths[:, None, None, None]
            scores = jnp.where(real, scores, jnp.finfo(scores.dtype).min)
        shares = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        site = bert.site(self.number, bert.PROBABILITIES)
        shares = random.dropout(shares, site, self.attention_rate)
        return jnp.einsum("bhqk,bkhd->bqhd", shares, value).reshape(x.shape)


class Encoder(nnx.Module):
    """What BERT models begin with; they inherit its parameters' names."""

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        width = bert.size(model).width
        self.rate, self.dtype = model["dropout"], jnp.dtype(settings.dtype)
        self.word = Embedding(model["vocabulary"], width, settings)
        self.position = Embedding(model["positions"], width, settings)
        self.segment = Embedding(model["segments"], width, settings)
        self.embedding_norm = Norm(width, settings)
        layers = range(bert.size(model).layers)
        self.layers = nnx.List([Layer(number, model, settings) for number in layers])

    def encode(
        self, ids: Array, segments: Array | None, lengths: Array | None, random: Any
    ) -> Array:
        """Return what the last layer gives, of the computation's type ``(B, S, H)``.

        Args:
            ids: int32 ``(B, S)``.
            segments: int32 ``(B, S)``; all 0 if None.
            lengths: tokens before the padding, int32 ``(B,)``; all if None.
        """
        kinds = self.segment(jnp.zeros_like(ids) if segments is None else segments)
        x = self.word(ids) + self.position(jnp.arange(ids.shape[1])) + kinds
        x = self.embedding_norm(x).astype(self.dtype)
        x = random.dropout(x, bert.EMBEDDINGS, self.rate)
        for layer in self.layers:
            x = layer(x, lengths, random)
        return x


def wide(x: Array) -> Array:
    """Return `x` in float32 or better."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
