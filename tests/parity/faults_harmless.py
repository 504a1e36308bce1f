"""Rewrites of one framework's side that compute the same: they must pass all rungs."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import linen as nn
from torch.nn import functional

from lockstep.engines import jax_optimizer, torch_optimizer
from lockstep.engines.torch_engine import TorchEngine
from lockstep.workloads import layers_flax, vision_flax
from lockstep.workloads.mnist_cnn import flax_model, torch_model
from tests.parity.faults import (
    OTHER,
    WITH,
    Ground,
    Patch,
    Trace,
    compared,
    first_failure,
    setting,
    wrapping,
)
from tests.parity.faults_jax import convolved


@dataclass(frozen=True, kw_only=True)
class Rewrite:
    """Another way to compute the same."""

    name: str
    side: str
    preset: str
    patch: Patch
    drilled: bool = False  # by `make drill-parity` alone: it takes a minute


def failure(ground: Ground, rewrite: Rewrite) -> str | None:
    """Climb all of float64 and float32; return what is said of the first rung that fails."""
    for precision in ("float64", "float32"):
        reference: Trace = {}
        for each in WITH[precision]:
            reference |= ground.reference(rewrite.preset, OTHER[rewrite.side], each)
        trace: Trace = {}
        with pytest.MonkeyPatch.context() as patch:
            rewrite.patch(patch)
            for each in WITH[precision]:
                trace |= ground.climb(rewrite.preset, rewrite.side, each)
        rung, _, said = first_failure(compared(ground, rewrite.preset, trace, reference, precision))
        if rung != "none":
            return said
    return None


# PyTorch's side ----------------------------------------------------------------------------------


def log_softmax(logits, labels, smoothing):
    shifted = logits - logits.detach().amax(1, keepdim=True)
    logs = shifted - shifted.exp().sum(1, keepdim=True).log()
    own = logs.gather(1, labels.long()[:, None])[:, 0]
    return -(1 - smoothing) * own - smoothing * logs.mean(1)


def unfolded(layer, x, weight, bias):
    """A convolution as one product over patches."""
    size, stride, padding = layer.kernel_size[0], layer.stride[0], layer.padding[0]
    patches = functional.unfold(x, size, padding=padding, stride=stride)
    side = (x.shape[-1] + 2 * padding - size) // stride + 1
    y = (weight.flatten(1) @ patches).unflatten(2, (side, side))
    return y if bias is None else y + bias[:, None, None]


def turned(sound):
    """The sum over channels in the other order."""

    def forward(layer, x, weight, bias):
        return sound(layer, x.flip(1), weight.flip(1), bias)

    return forward


def by_hand(settings, decay, values, grads, kept):
    """SGD, a tensor at a time."""
    result = []
    for value, gradient, slot in zip(values, grads, kept["momentum"]):
        direction = gradient + decay * value
        slot.copy_(settings["momentum"] * slot + direction)
        step = direction + settings["momentum"] * slot if settings["nesterov"] else slot
        result.append(step.clone())
    return result


def squares(x, mean, var, weight, bias, training, momentum, eps):
    """Variance as E[x²] - E[x]², in float64."""
    if not training:
        scale = weight / torch.sqrt(var + eps)
        return (x - mean[:, None, None]) * scale[:, None, None] + bias[:, None, None]
    wide, n = x.double(), x.numel() // x.shape[1]
    of_batch = wide.mean((0, 2, 3))
    spread = wide.square().mean((0, 2, 3)) - of_batch.square()
    with torch.no_grad():
        mean.mul_(1 - momentum).add_(momentum * of_batch)
        var.mul_(1 - momentum).add_(momentum * spread * (n / (n - 1)))
    normal = (wide - of_batch[:, None, None]) / torch.sqrt(spread + eps)[:, None, None]
    return (normal * weight[:, None, None] + bias[:, None, None]).to(x)


def first_of_windows(x, size):
    """A maximum by its place; of equal ones the first."""
    windows = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2)).transpose(3, 4).flatten(4)
    return windows.gather(4, windows.argmax(4, keepdim=True))[..., 0]


def even_pool(x: torch.Tensor, *_: object) -> torch.Tensor:
    """The gradient is shared between equal ones."""
    windows = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2))
    return windows.amax((3, 5))


def in_halves(sound):
    """The logits of one half of the batch, and then of the other."""

    def outputs(self, model, batch, train):
        if any(tensor.requires_grad for tensor in batch.values()):
            return sound(self, model, batch, train)  # the probe, which looks at layers
        half = len(batch["label"]) // 2
        parts = (slice(None, half), slice(half, None))
        made = [sound(self, model, {n: t[p] for n, t in batch.items()}, train) for p in parts]
        return {"logits": torch.cat([part["logits"] for part in made])}

    return outputs


def scaled(images, mean, std, dtype):
    x = images.to(dtype) / 255
    return ((x - mean[0]) / std[0]).permute(0, 3, 1, 2)


# JAX's side --------------------------------------------------------------------------------------


def flax_log_softmax(logits, labels, smoothing):
    top = jax.lax.stop_gradient(logits.max(1, keepdims=True))
    logs = logits - top - jnp.log(jnp.exp(logits - top).sum(1, keepdims=True))
    return -jnp.take_along_axis(logs, labels[:, None], 1)[:, 0]


def tap_by_tap(sound, x, kernel, bias, stride, padding):
    """A convolution as a sum over the kernel's places."""
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    size = kernel.shape[0]
    high, wide = ((n - size) // stride + 1 for n in x.shape[1:3])
    total = 0.0
    for i in range(size):
        for j in range(size):
            part = x[:, i : i + stride * high : stride, j : j + stride * wide : stride]
            total = total + jnp.einsum("bhwc,co->bhwo", part, kernel[i, j], precision="highest")
    return total if bias is None else total + bias


def flax_by_hand(settings, decay, value, grad, kept):
    """SGD with momentum, its sum the other way round."""
    momentum = grad + kept["momentum"] * settings["momentum"]
    return momentum, {"momentum": momentum}


def flax_scaled(images, mean, std, dtype):
    return (images.astype(dtype) / 255 - mean[0]) / std[0]


def windows_of(x, **_):
    """The maximum of 2x2 windows, its gradient to the first of equal ones."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels).transpose(0, 1, 3, 5, 2, 4)
    x = x.reshape(*x.shape[:4], 4)
    return jnp.take_along_axis(x, x.argmax(-1, keepdims=True), -1)[..., 0]


SOUND_POOL = layers_flax._max_pool


@jax.custom_vjp
def other_pool(x: jax.Array) -> jax.Array:
    """The gradient goes to the last of equal ones."""
    return SOUND_POOL(x)


def _forward(x):
    a, b, c, d = layers_flax._corners(x)
    top, bottom = jnp.maximum(a, b), jnp.maximum(c, d)
    winner = jnp.where(top > bottom, jnp.where(a > b, 0, 1), jnp.where(c > d, 2, 3))
    return jnp.maximum(top, bottom), winner.astype(jnp.uint8)


other_pool.defvjp(_forward, layers_flax._max_pool_backward)


def row(name: str, side: str, preset: str, patch: Patch, **more: bool) -> Rewrite:
    return Rewrite(name=name, side=side, preset=preset, patch=patch, **more)


REWRITES = [
    row("log-softmax by hand", "torch", "residual",
        setting(functional, "cross_entropy", lambda x, y, reduction, label_smoothing: log_softmax(
            x, y, label_smoothing))),
    row("a convolution by unfold", "torch", "residual",
        setting(torch.nn.Conv2d, "_conv_forward", unfolded)),
    row("channels summed in the other order", "torch", "residual",
        wrapping(torch.nn.Conv2d, "_conv_forward", turned)),
    row("SGD by hand", "torch", "residual", setting(torch_optimizer, "_sgd", by_hand)),
    row("variance as a difference of squares in float64", "torch", "residual",
        setting(functional, "batch_norm", squares)),
    row("the maximum by its place", "torch", "plain",
        setting(functional, "max_pool2d", first_of_windows)),
    # What is equal saw equal pixels: the weights' gradient is the same.
    row("ties of max-pooling shared", "torch", "plain",
        setting(functional, "max_pool2d", even_pool)),
    row("ReLU as a product", "torch", "plain",
        setting(functional, "relu", lambda x: x * (x > 0))),
    row("a batch in two halves", "torch", "plain", wrapping(TorchEngine, "outputs", in_halves)),
    row("pixels scaled first", "torch", "plain", setting(torch_model, "normalise", scaled)),
    row("a dense layer by einsum", "torch", "plain",
        setting(torch.nn.Linear, "forward", lambda self, x: self.bias + torch.einsum(
            "bi,oi->bo", x, self.weight))),
    row("losses summed in the other order", "torch", "plain",
        wrapping(torch_model, "loss", lambda sound: lambda x, b, r: {"loss": sound(
            {"logits": x["logits"].flip(0)}, {**b, "label": b["label"].flip(0)}, r
        )["loss"].flip(0)})),
    row("log-softmax by hand", "jax", "plain",
        setting(vision_flax, "cross_entropy", flax_log_softmax)),
    row("a convolution tap by tap", "jax", "plain", convolved(tap_by_tap), drilled=True),
    row("channels summed in the other order", "jax", "plain",
        convolved(lambda sound, x, k, *rest: sound(x[..., ::-1], k[:, :, ::-1], *rest))),
    row("SGD by hand", "jax", "plain", setting(jax_optimizer, "_sgd", flax_by_hand)),
    row("ReLU as a choice", "jax", "plain",
        setting(nn, "relu", lambda x: jnp.where(x > 0, x, 0))),
    row("pixels scaled first", "jax", "plain", setting(flax_model, "normalise", flax_scaled)),
    row("the maximum by its place", "jax", "plain", setting(nn, "max_pool", windows_of)),
    row("ties of max-pooling to the last", "jax", "plain",
        setting(nn, "max_pool", lambda x, **_: other_pool(x))),
    # Also a variant of its own, which tests/parity/test_residual.py climbs.
    row("the patches of a convolution as rows", "jax", "residual",
        wrapping(layers_flax, "_native", lambda _: layers_flax._im2col), drilled=True),
]  # fmt: skip
