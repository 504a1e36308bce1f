"""What image workloads share in JAX: normalisation, forward pass, loss, metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from lockstep.workloads import augmentation_flax, vision
from lockstep.workloads.contract import Data, Recipe


def augment(
    shape: vision.ShapeOf, batch: Mapping[str, Array], recipe: Recipe, data: Data
) -> dict[str, Array]:
    """Return a batch whose images are as the model is shown them, uint8; without crops."""
    kind = vision.kind(shape, recipe, data)
    image = augmentation_flax.apply(batch["image"], batch.get("crop"), kind)
    return {**{name: array for name, array in batch.items() if name != "crop"}, "image": image}


def normalise(
    images_bhwc: Array, mean: Sequence[float], std: Sequence[float], dtype: DTypeLike
) -> Array:
    """Return uint8 images as ``(x / 255 - mean) / std``, channels last, of `dtype`.

    Mean and deviation are per channel and refer to pixels scaled to [0, 1].
    """
    scale = jnp.asarray([1 / (255 * s) for s in std], dtype)
    shift = jnp.asarray([-m / s for m, s in zip(mean, std)], dtype)
    return images_bhwc.astype(dtype) * scale + shift


def forward(
    module: nn.Module, batch: Mapping[str, Array], random: Any, train: bool
) -> dict[str, Array]:
    """Return the logits, ``(B, classes)``."""
    return {"logits": module(batch["image"], train=train)}


def cross_entropy(logits: Array, labels: Array, label_smoothing: float) -> Array:
    """Return each example's cross-entropy, ``(B,)``, computed in float32 or better."""
    if logits.dtype == jnp.bfloat16:
        logits = logits.astype(jnp.float32)
    if not label_smoothing:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    targets = optax.smooth_labels(
        jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype), label_smoothing
    )
    return optax.softmax_cross_entropy(logits, targets)


def loss(
    outputs: Mapping[str, Array], batch: Mapping[str, Array], recipe: Recipe
) -> dict[str, Array]:
    """Return each example's cross-entropy, ``(B,)``."""
    smoothing = recipe["label_smoothing"]
    return {"loss": cross_entropy(outputs["logits"], batch["label"], smoothing)}


def accuracy(logits: Array, labels: Array) -> Array:
    """Return whether each example's largest logit is its label's, as 0 or 1, ``(B,)``."""
    return (logits.argmax(axis=-1) == labels).astype(jnp.float32)


def top_k(logits: Array, labels: Array, k: int) -> Array:
    """Return whether each example's label is among its `k` largest logits, ``(B,)``.

    Of equal logits the first counts as the larger one, and NaN as the largest, as for `argmax`.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=1)
    earlier = jnp.arange(logits.shape[1]) < labels[:, None]
    ahead = ~(logits <= own) | ((logits == own) & earlier)
    return (ahead.sum(axis=1) < k).astype(jnp.float32)


def accuracy_and_top5(
    outputs: Mapping[str, Array], batch: Mapping[str, Array], recipe: Recipe
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return each example's share of both metrics, ``(B,)``; no columns."""
    logits, label = outputs["logits"], batch["label"]
    return {"accuracy": accuracy(logits, label), "top5": top_k(logits, label, 5)}, {}
