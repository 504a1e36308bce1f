"""`resnet50_imagenet` in Flax."""

import functools
from collections.abc import Mapping
from typing import Any

from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from lockstep.workloads import naming, resnet, resnet_flax, vision_flax
from lockstep.workloads.resnet50_imagenet.spec import FAMILY
from lockstep.workloads.vision_flax import accuracy, cross_entropy, normalise, top_k

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

build = functools.partial(resnet_flax.build, FAMILY)


augment = functools.partial(vision_flax.augment, resnet.example_shape)


def inputs(batch: Mapping[str, Array], dtype: DTypeLike) -> dict[str, Array]:
    """Return a batch with its images normalised."""
    return {**batch, "image": normalise(batch["image"], MEAN, STD, dtype)}


def forward(
    module: nn.Module, batch: Mapping[str, Array], random: Any, train: bool
) -> dict[str, Array]:
    """Return the logits, ``(B, classes)``."""
    return {"logits": module(batch["image"], train=train)}


def loss(
    outputs: Mapping[str, Array], batch: Mapping[str, Array], recipe: Mapping[str, Any]
) -> dict[str, Array]:
    """Return each example's cross-entropy, ``(B,)``."""
    smoothing = recipe["label_smoothing"]
    return {"loss": cross_entropy(outputs["logits"], batch["label"], smoothing)}


def metrics(
    outputs: Mapping[str, Array], batch: Mapping[str, Array], recipe: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return each example's share of each metric, ``(B,)``; no columns."""
    logits, label = outputs["logits"], batch["label"]
    return {"accuracy": accuracy(logits, label), "top5": top_k(logits, label, 5)}, {}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to Flax's; the layouts are the same."""
    return resnet.flax_names(FAMILY, model)
