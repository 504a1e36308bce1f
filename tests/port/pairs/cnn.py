"""A small convolutional network, and its port to Flax NNX with settings that may be wrong."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn


class Cnn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.norm2 = nn.BatchNorm2d(8)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(8, 8, 3, padding=1)
        self.average = nn.AvgPool2d(3, stride=2, padding=1)
        self.fc1 = nn.Linear(32, 16)
        self.dropout = nn.Dropout(0.1)
        self.fc2 = nn.Linear(16, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm1(self.conv1(image)))
        x = F.leaky_relu(self.norm2(self.conv2(x)), 0.1)
        x = F.gelu(self.conv3(self.pool(x)))
        x = torch.flatten(self.average(x), 1)
        x = self.dropout(F.gelu(self.fc1(x)))
        return self.head(F.gelu(self.fc2(x)))


ZEROS = nnx.initializers.zeros_init()  # the weights are PyTorch's
SOUND: dict[str, Any] = {
    "eps1": 1e-5,
    "eps2": 1e-5,
    "momentum": 0.9,
    "biased": False,
    "batch statistics": False,
    "conv2": [(1, 1), (1, 1)],
    "kernel3": None,
    "pool": ((1, 1), (1, 1)),
    "average": ((1, 1), (1, 1)),
    "count": True,
    "slope": 0.1,
    "gelu3": lambda x: nnx.gelu(x, approximate=False),
    "gelu1": lambda x: nnx.gelu(x, approximate=False),
    "channels last": False,
    "drop": False,
    "transpose fc2": False,
    "bias fc2": True,
    "im2col": False,
    "jit": False,
}


class Norm(nnx.Module):
    """Batch normalisation as PyTorch has it: its running variance is unbiased."""

    def __init__(self, features: int, eps: float, s: dict[str, Any]) -> None:
        self.scale, self.bias = nnx.Param(jnp.ones(features)), nnx.Param(jnp.zeros(features))
        self.mean, self.var = (
            nnx.BatchStat(jnp.zeros(features)),
            nnx.BatchStat(jnp.ones(features)),
        )
        self.eps, self.s, self.use_running_average = eps, s, True

    def __call__(self, x: jax.Array) -> jax.Array:
        mean, var = self.mean[...], self.var[...]
        if not self.use_running_average or self.s["batch statistics"]:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        if not self.use_running_average:
            count = x.size // x.shape[-1]
            kept = var if self.s["biased"] else var * (count / (count - 1))
            m = self.s["momentum"]
            self.mean[...] = m * self.mean[...] + (1 - m) * mean
            self.var[...] = m * self.var[...] + (1 - m) * kept
        return (x - mean) * jax.lax.rsqrt(var + self.eps) * self.scale[...] + self.bias[...]


class Port(nnx.Module):
    def __init__(self, s: dict[str, Any]) -> None:
        rngs = nnx.Rngs(0)
        self.s = s
        one = [(1, 1), (1, 1)]
        self.conv1 = nnx.Conv(3, 8, (3, 3), padding=one, kernel_init=ZEROS, rngs=rngs)
        self.norm1 = Norm(8, s["eps1"], s)
        self.conv2 = nnx.Conv(
            8, 8, (3, 3), strides=2, padding=s["conv2"], kernel_init=ZEROS, rngs=rngs
        )
        self.norm2 = Norm(8, s["eps2"], s)
        self.conv3 = Kernel(s)
        self.fc1 = nnx.Linear(32, 16, kernel_init=ZEROS, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.fc2 = Square(s)
        self.head = nnx.Linear(16, 5, kernel_init=ZEROS, rngs=rngs)

    def __call__(self, image: jax.Array) -> jax.Array:
        s, x = self.s, image
        x = nnx.relu(self.norm1(self.conv1(x)))
        x = nnx.leaky_relu(self.norm2(self.conv2(x)), s["slope"])
        x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=s["pool"])
        x = s["gelu3"](self.conv3(x))
        x = nnx.avg_pool(
            x, (3, 3), strides=(2, 2), padding=s["average"], count_include_pad=s["count"]
        )
        if not s["channels last"]:
            x = x.transpose(0, 3, 1, 2)
        x = s["gelu1"](self.fc1(x.reshape(len(x), -1)))
        x = self.dropout(x, deterministic=False if s["drop"] else None)
        return self.head(nnx.gelu(self.fc2(x), approximate=False))


class Kernel(nnx.Module):
    """A convolution whose kernel may be read in another way, or which is written as a product."""

    def __init__(self, s: dict[str, Any]) -> None:
        self.kernel = nnx.Param(jnp.zeros((3, 3, 8, 8)))
        self.bias, self.s = nnx.Param(jnp.zeros(8)), s

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...]
        if self.s["kernel3"]:
            kernel = self.s["kernel3"](kernel)
        if self.s["im2col"]:
            h, w = x.shape[1:3]
            wide = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
            parts = [wide[:, i : i + h, j : j + w] for i in range(3) for j in range(3)]
            return jnp.concatenate(parts, -1) @ kernel.reshape(72, 8) + self.bias[...]
        numbers = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        return y + self.bias[...]


class Square(nnx.Module):
    def __init__(self, s: dict[str, Any]) -> None:
        self.kernel = nnx.Param(jnp.zeros((16, 16)))
        self.bias, self.s = nnx.Param(jnp.zeros(16)), s

    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.kernel[...].T if self.s["transpose fc2"] else self.kernel[...]
        return x @ kernel + (self.bias[...] if self.s["bias fc2"] else 0)


def pair(fault: dict[str, Any]) -> dict[str, Any]:
    """The names of a pair's file, with some of the port's settings changed."""
    torch.manual_seed(0)
    images = np.random.default_rng(0).normal(size=(4, 3, 16, 16)).astype(np.float32)
    port = Port({**SOUND, **fault})
    call = nnx.jit(lambda model, x: model(x)) if fault.get("jit") else lambda model, x: model(x)
    return {
        "torch_model": Cnn(),
        "jax_model": port,
        "batch": {"image": images},
        "jax_call": lambda model, batch: call(model, batch["image"].transpose(0, 2, 3, 1)),
    }
