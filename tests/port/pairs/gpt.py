"""A small decoder with fused attention, and its port to Flax Linen."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from flax import linen
from torch import nn

WIDTH, HEADS, WORDS, LENGTH = 16, 2, 23, 10


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fc, self.out = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.proj(self.attend(self.ln1(x)))
        return x + self.out(F.gelu(self.fc(self.ln2(x))))

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        rows, length, _ = x.shape
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        q, k, v = (y.view(rows, length, HEADS, WIDTH // HEADS).transpose(1, 2) for y in (q, k, v))
        scores = q @ k.transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
        later = torch.triu(torch.ones(length, length), diagonal=1).bool()
        weights = F.softmax(scores.masked_fill(later, -1e4), dim=-1)
        return (weights @ v).transpose(1, 2).reshape(rows, length, WIDTH)


class Gpt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(WORDS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.ln_f = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_f(x))


def layer_norm(x: jax.Array, axes: Any, eps: float, ddof: int, centred: bool) -> jax.Array:
    mean = x.mean(axes, keepdims=True) if centred else 0.0
    count = np.prod([x.shape[axis] for axis in np.atleast_1d(axes)]) - ddof
    variance = jnp.square(x - mean).sum(axes, keepdims=True) / count
    return (x - mean) * jax.lax.rsqrt(variance + eps)


def outside(x: jax.Array) -> jax.Array:
    return (x - x.mean(-1, keepdims=True)) / (x.std(-1, keepdims=True) + 1e-5)


def fast(x: jax.Array) -> jax.Array:
    mean, square = x.mean(-1, keepdims=True), jnp.square(x).mean(-1, keepdims=True)
    return (x - mean) / jnp.sqrt(square - jnp.square(mean) + 1e-5)


def plain(x: jax.Array) -> jax.Array:
    return layer_norm(x, -1, 1e-5, 0, True)


SOUND: dict[str, Any] = {
    "norm": plain,  # of all but the last
    "last norm": plain,
    "first norm": None,
    "gelu": lambda x: linen.gelu(x, approximate=False),
    "scale": (WIDTH // HEADS) ** -0.5,
    "scale first": False,
    "mask": -1e4,
    "diagonal": 1,
    "axis": -1,
    "heads last": False,
    "split": lambda x: jnp.split(x, 3, -1),
    "embedding": 1.0,
    "einsum": False,
    "remat": False,
}


class Norm(linen.Module):
    function: Any

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.param("scale", linen.initializers.ones, (WIDTH,))
        bias = self.param("bias", linen.initializers.zeros, (WIDTH,))
        return self.function(x) * scale + bias


class PortBlock(linen.Module):
    s: Any
    first: bool

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        s = self.s
        norm = (s["first norm"] if self.first else None) or s["norm"]
        y = self.attend(Norm(norm, name="ln1")(x))
        x = x + linen.Dense(WIDTH, name="proj")(y)
        y = linen.Dense(4 * WIDTH, name="fc")(Norm(s["norm"], name="ln2")(x))
        return x + linen.Dense(WIDTH, name="out")(s["gelu"](y))

    def attend(self, x: jax.Array) -> jax.Array:
        s, (rows, length, _) = self.s, x.shape
        parts = s["split"](linen.Dense(3 * WIDTH, name="qkv")(x))
        if s["heads last"]:
            split = [
                y.reshape(rows, length, WIDTH // HEADS, HEADS).transpose(0, 3, 1, 2) for y in parts
            ]
        else:
            split = [
                y.reshape(rows, length, HEADS, WIDTH // HEADS).transpose(0, 2, 1, 3) for y in parts
            ]
        q, k, v = split
        if s["scale first"]:
            scores = jnp.einsum("bhqd,bhkd->bhqk", q * s["scale"], k)
        else:
            scores = q @ k.swapaxes(-1, -2) * s["scale"]
        later = jnp.triu(jnp.ones((length, length), bool), s["diagonal"])
        if s["mask"] is not None:
            scores = jnp.where(later, s["mask"], scores)
        weights = linen.softmax(scores, axis=s["axis"])
        mixed = jnp.einsum("bhqk,bhkd->bhqd", weights, v) if s["einsum"] else weights @ v
        return mixed.transpose(0, 2, 1, 3).reshape(rows, length, WIDTH)


class Port(linen.Module):
    s: Any

    @linen.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        s = self.s
        table = linen.Embed(WORDS, WIDTH, name="wte")
        x = table(ids) * s["embedding"]
        x = x + linen.Embed(LENGTH, WIDTH, name="wpe")(jnp.arange(ids.shape[1]))
        block = linen.remat(PortBlock) if s["remat"] else PortBlock
        for k in range(2):
            x = block(s, k == 0, name=f"blocks_{k}")(x)
        return table.attend(Norm(s["last norm"], name="ln_f")(x))


class Settings(dict):
    """Settings that Linen can hash: a module's attributes must be."""

    def __hash__(self) -> int:
        return id(self)


def pair(fault: dict[str, Any]) -> dict[str, Any]:
    """The names of a pair's file, with some of the port's settings changed."""
    torch.manual_seed(0)
    ids = np.random.default_rng(0).integers(0, WORDS, (3, LENGTH))
    return {
        "torch_model": Gpt(),
        "jax_model": Port(Settings({**SOUND, **fault})),
        "batch": ids,
    }
