"""An encoder of `nn.MultiheadAttention`, and its port to Flax NNX with a kernel per head."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

WIDTH, HEADS, WORDS, LENGTH = 16, 4, 23, 8
SIZE = WIDTH // HEADS


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.fc, self.out = nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)

    def forward(self, ids: torch.Tensor, padded: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.embed(ids) * WIDTH**0.5
        y, _ = self.attention(x, x, x, key_padding_mask=padded, need_weights=False)
        x = self.norm1(x + y)
        x = self.norm2(x + self.out(F.silu(self.fc(x))))
        return {"last": x, "pooled": x.std(1)}


ZEROS = nnx.initializers.zeros_init()  # the weights are PyTorch's
SOUND: dict[str, Any] = {
    "scale": SIZE**-0.5,
    "kernel": lambda kernel: kernel,  # of the query
    "padding": lambda scores, padded: jnp.where(padded, -1e30, scores),
    "embedding": WIDTH**0.5,
    "eps1": 1e-6,
    "eps2": 1e-6,
    "activation": nnx.silu,
    "ddof": 1,
    "one product": False,
}


class Heads(nnx.Module):
    def __init__(self) -> None:
        self.kernel = nnx.Param(jnp.zeros((WIDTH, HEADS, SIZE)))
        self.bias = nnx.Param(jnp.zeros((HEADS, SIZE)))


class Attention(nnx.Module):
    def __init__(self, rngs: nnx.Rngs, s: dict[str, Any]) -> None:
        self.query, self.key, self.value = (Heads() for _ in range(3))
        self.out, self.s = nnx.Linear(WIDTH, WIDTH, kernel_init=ZEROS, rngs=rngs), s

    def __call__(self, x: jax.Array, padded: jax.Array) -> jax.Array:
        s = self.s
        parts = [(p.kernel[...], p.bias[...]) for p in (self.query, self.key, self.value)]
        parts[0] = (s["kernel"](parts[0][0]), parts[0][1])
        if s["one product"]:
            kernel = jnp.concatenate([kernel for kernel, _ in parts], -1)
            together = jnp.einsum("bte,ehd->bthd", x, kernel)
            split = jnp.split(together, 3, -1)
            q, k, v = (y + bias for y, (_, bias) in zip(split, parts))
        else:
            q, k, v = (jnp.einsum("bte,ehd->bthd", x, kernel) + bias for kernel, bias in parts)
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) * s["scale"]
        weights = jax.nn.softmax(s["padding"](scores, padded[:, None, None]))
        mixed = jnp.einsum("bhqk,bkhd->bqhd", weights, v)
        return self.out(mixed.reshape(x.shape))


class Port(nnx.Module):
    def __init__(self, s: dict[str, Any]) -> None:
        rngs = nnx.Rngs(0)
        self.s = s
        self.embed = nnx.Embed(WORDS, WIDTH, embedding_init=ZEROS, rngs=rngs)
        self.attention = Attention(rngs, s)
        self.norm1 = nnx.LayerNorm(WIDTH, epsilon=s["eps1"], use_fast_variance=False, rngs=rngs)
        self.norm2 = nnx.LayerNorm(WIDTH, epsilon=s["eps2"], use_fast_variance=False, rngs=rngs)
        self.fc = nnx.Linear(WIDTH, 32, kernel_init=ZEROS, rngs=rngs)
        self.out = nnx.Linear(32, WIDTH, kernel_init=ZEROS, rngs=rngs)

    def __call__(self, ids: jax.Array, padded: jax.Array) -> dict[str, jax.Array]:
        x = self.embed(ids) * self.s["embedding"]
        x = self.norm1(x + self.attention(x, padded))
        x = self.norm2(x + self.out(self.s["activation"](self.fc(x))))
        return {"last": x, "pooled": x.std(1, ddof=self.s["ddof"])}


def pair(fault: dict[str, Any]) -> dict[str, Any]:
    """The names of a pair's file, with some of the port's settings changed."""
    torch.manual_seed(0)
    ids = np.random.default_rng(0).integers(0, WORDS, (3, LENGTH))
    padded = np.arange(LENGTH)[None] >= np.array([[7], [5], [3]])
    return {
        "torch_model": Encoder(),
        "jax_model": Port({**SOUND, **fault}),
        "batch": {"ids": ids, "padded": padded},
    }
