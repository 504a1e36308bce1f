"""A decoder of images: transposed convolutions, resizing; its port is a plain function."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from lockstep.port import tap


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(2, 8)
        self.up = nn.ConvTranspose2d(8, 6, 3, stride=2)
        self.mix = nn.Conv2d(6, 6, 3, padding=1)
        self.small = nn.Conv2d(6, 6, 1)
        self.last = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = self.up(self.norm(image))
        x = F.interpolate(self.mix(x), size=(12, 12), mode="bilinear", align_corners=False)
        x = F.interpolate(self.small(x), size=(5, 5), mode="bilinear", align_corners=False)
        x = F.interpolate(x, size=(8, 8), mode="nearest")
        x = F.normalize(self.last(x), dim=1)
        return x / (x.var((2, 3), keepdim=True) + 1e-3)


def bilinear(x: jax.Array, size: int) -> jax.Array:
    shape = (len(x), size, size, x.shape[-1])
    return jax.image.resize(x, shape, "bilinear", antialias=False)


def corners(x: jax.Array, size: int) -> jax.Array:
    places = jnp.linspace(0, x.shape[1] - 1, size).astype(x.dtype)
    low = jnp.floor(places).astype(int)
    high, part = jnp.minimum(low + 1, x.shape[1] - 1), places - low
    x = x[:, low] * (1 - part)[:, None, None] + x[:, high] * part[:, None, None]
    return x[:, :, low] * (1 - part)[:, None] + x[:, :, high] * part[:, None]


def antialiased(x: jax.Array, size: int) -> jax.Array:
    return jax.image.resize(x, (len(x), size, size, x.shape[-1]), "bilinear", antialias=True)


def nearest(x: jax.Array, size: int) -> jax.Array:
    places = (jnp.arange(size) * x.shape[1]) // size
    return x[:, places][:, :, places]


def middles(x: jax.Array, size: int) -> jax.Array:
    return jax.image.resize(x, (len(x), size, size, x.shape[-1]), "nearest")


SOUND: dict[str, Any] = {
    "eps": 1e-5,
    "up": lambda kernel: kernel,
    "mix": lambda kernel: kernel,
    "larger": bilinear,
    "smaller": bilinear,
    "nearest": nearest,
    "ddof": 1,
    "norm eps": 1e-12,
    "added": 1e-3,
}


def convolution(p: Any, x: jax.Array, pad: int, change: Any = lambda kernel: kernel) -> jax.Array:
    numbers, pads = ("NHWC", "HWIO", "NHWC"), [(pad, pad), (pad, pad)]
    y = jax.lax.conv_general_dilated(
        x, change(p["kernel"]), (1, 1), pads, dimension_numbers=numbers
    )
    return y + p["bias"]


def port(s: dict[str, Any]) -> Any:
    def function(p: Any, image: jax.Array) -> jax.Array:
        x = image.transpose(0, 2, 3, 1)
        rows, height, width, _ = x.shape
        groups = x.reshape(rows, height, width, 2, 4)
        mean, var = (f(groups, axis=(1, 2, 4), keepdims=True) for f in (jnp.mean, jnp.var))
        x = ((groups - mean) * jax.lax.rsqrt(var + s["eps"])).reshape(x.shape)
        x = tap("norm", x * p["norm"]["scale"] + p["norm"]["bias"])
        kernel = s["up"](p["up"]["kernel"])
        x = tap("up", jax.lax.conv_transpose(x, kernel, (2, 2), "VALID") + p["up"]["bias"])
        x = tap("mix", convolution(p["mix"], x, 1, s["mix"]))
        x = tap("small", convolution(p["small"], s["larger"](x, 12), 0))
        x = s["nearest"](s["smaller"](x, 5), 8)
        x = tap("last", convolution(p["last"], x, 1))
        norm = jnp.sqrt(jnp.square(x).sum(-1, keepdims=True))
        x = x / jnp.maximum(norm, s["norm eps"])
        return x / (x.var((1, 2), keepdims=True, ddof=s["ddof"]) + s["added"])

    return function


def tree() -> Any:
    def layer(size: int, inputs: int, outputs: int) -> dict[str, jax.Array]:
        return {"kernel": jnp.ones((size, size, inputs, outputs)), "bias": jnp.zeros(outputs)}

    return {
        "norm": {"scale": jnp.ones(8), "bias": jnp.zeros(8)},
        "up": layer(3, 8, 6),
        "mix": layer(3, 6, 6),
        "small": layer(1, 6, 6),
        "last": layer(3, 6, 3),
    }


def pair(fault: dict[str, Any]) -> dict[str, Any]:
    """The names of a pair's file, with some of the port's settings changed."""
    torch.manual_seed(0)
    return {
        "torch_model": Decoder(),
        "jax_model": port({**SOUND, **fault}),
        "jax_params": tree(),
        "batch": np.random.default_rng(0).normal(size=(2, 8, 5, 5)).astype(np.float32),
    }
