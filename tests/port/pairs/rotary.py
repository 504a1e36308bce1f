"""A decoder with rotary positions and gates, and its port as functions that show their values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lockstep.port import tap

WIDTH, HEADS, WORDS, LENGTH = 16, 2, 23, 10
SIZE = WIDTH // HEADS


class RmsNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


def turned(x: torch.Tensor) -> torch.Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((-b, a), dim=-1)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = RmsNorm(), RmsNorm()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.gate, self.up = (nn.Linear(WIDTH, 24, bias=False) for _ in range(2))
        self.down = nn.Linear(24, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, (rows, length, _) = self.norm1(x), x.shape
        q, k, v = (
            f(h).view(rows, length, HEADS, SIZE).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        rates = 1.0 / 100.0 ** (torch.arange(0, SIZE, 2) / SIZE)
        angles = torch.arange(length)[:, None] * rates
        angles = torch.cat((angles, angles), dim=-1).to(x.dtype)
        q, k = (y * angles.cos() + turned(y) * angles.sin() for y in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(y.transpose(1, 2).reshape(rows, length, WIDTH))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Rotary(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList([Layer(), Layer()])
        self.norm = RmsNorm()
        self.head = nn.Linear(WIDTH, WORDS, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def half(x: jax.Array) -> jax.Array:
    return jnp.concatenate([-x[..., SIZE // 2 :], x[..., : SIZE // 2]], -1)


def neighbours(x: jax.Array) -> jax.Array:
    return jnp.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape)


SOUND: dict[str, Any] = {
    "eps": 1e-5,
    "last eps": 1e-5,
    "turn": half,
    "angles": lambda a: jnp.concatenate([a, a], -1),
    "scale": SIZE**-0.5,
    "causal": True,
    "gate": jax.nn.silu,
    "scan": False,
    "jit": False,
}


def norm(p: Any, x: jax.Array, eps: float) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + eps) * p["weight"]


def layer(p: Any, x: jax.Array, s: dict[str, Any], name: str) -> jax.Array:
    h, (rows, length, _) = tap(f"{name}.norm1", norm(p["norm1"], x, s["eps"])), x.shape
    parts = [tap(f"{name}.{n}", h @ p[n]["kernel"]) for n in "qkv"]
    q, k, v = (y.reshape(rows, length, HEADS, SIZE).transpose(0, 2, 1, 3) for y in parts)
    rates = 1.0 / 100.0 ** (jnp.arange(0, SIZE, 2) / SIZE)
    angles = s["angles"](jnp.arange(length)[:, None] * rates)
    q, k = (y * jnp.cos(angles) + s["turn"](y) * jnp.sin(angles) for y in (q, k))
    scores = q @ k.swapaxes(-1, -2) * s["scale"]
    if s["causal"]:
        scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -jnp.inf)
    y = (jax.nn.softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(rows, length, WIDTH)
    x = x + tap(f"{name}.o", y @ p["o"]["kernel"])
    h = tap(f"{name}.norm2", norm(p["norm2"], x, s["eps"]))
    gated = s["gate"](tap(f"{name}.gate", h @ p["gate"]["kernel"]))
    return x + tap(f"{name}.down", gated * (h @ p["up"]["kernel"]) @ p["down"]["kernel"])


def port(s: dict[str, Any]) -> Any:
    def function(p: Any, ids: jax.Array) -> jax.Array:
        x = tap("embed", p["embed"]["embedding"][ids])
        if s["scan"]:
            x, _ = jax.lax.scan(lambda x, p: (layer(p, x, s, "scanned"), None), x, p["layers"])
        else:
            for k, own in enumerate(p["layers"]):
                x = tap(f"layers.{k}", layer(own, x, s, f"layers.{k}"))
        return tap("norm", norm(p["norm"], x, s["last eps"])) @ p["head"]["kernel"]

    return jax.jit(function) if s["jit"] else function


def tree(scan: bool) -> Any:
    def kernel(*shape: int) -> dict[str, jax.Array]:
        return {"kernel": jnp.zeros(shape)}  # the weights are PyTorch's

    def one() -> dict[str, Any]:
        found: dict[str, Any] = {n: kernel(WIDTH, WIDTH) for n in "qkvo"}
        found |= {n: {"weight": jnp.ones(WIDTH)} for n in ("norm1", "norm2")}
        gates = {n: kernel(WIDTH, 24) for n in ("gate", "up")}
        return found | gates | {"down": kernel(24, WIDTH)}

    layers: Any = [one(), one()]
    if scan:
        layers = jax.tree.map(lambda *each: jnp.stack(each), *layers)
    table = {"embedding": jnp.zeros((WORDS, WIDTH))}
    return {
        "embed": table,
        "layers": layers,
        "norm": {"weight": jnp.ones(WIDTH)},
        "head": kernel(WIDTH, WORDS),
    }


def pair(fault: dict[str, Any]) -> dict[str, Any]:
    """The names of a pair's file, with some of the port's settings changed."""
    torch.manual_seed(0)
    s = {**SOUND, **fault}
    ids = np.random.default_rng(0).integers(0, WORDS, (3, LENGTH))
    return {
        "torch_model": Rotary(),
        "jax_model": port(s),
        "jax_params": tree(s["scan"]),
        "batch": {"ids": ids},
    }
