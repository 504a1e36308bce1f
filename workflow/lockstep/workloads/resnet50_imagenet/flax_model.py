"""`resnet50_imagenet` in Flax."""

import functools
from collections.abc import Mapping
from typing import Any

from jax import Array
from jax.typing import DTypeLike

from lockstep.workloads import naming, resnet, resnet_flax
from lockstep.workloads.resnet50_imagenet.spec import FAMILY
from lockstep.workloads.vision_flax import accuracy, cross_entropy, normalise, top_k

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

build = functools.partial(resnet_flax.build, FAMILY)


def inputs(batch: Mapping[str, Array], dtype: DTypeLike) -> Array:
    """Return what the model takes, from images uint8 ``(B, size, size, 3)``."""
    return normalise(batch["images"], MEAN, STD, dtype)


def losses(logits: Array, batch: Mapping[str, Array], recipe: Mapping[str, Any]) -> Array:
    """Return each example's loss, ``(B,)``."""
    return cross_entropy(logits, batch["labels"], recipe["label_smoothing"])


def metrics(logits: Array, batch: Mapping[str, Array]) -> dict[str, Array]:
    """Return each example's share of each metric, ``(B,)``."""
    labels = batch["labels"]
    return {"accuracy": accuracy(logits, labels), "top5": top_k(logits, labels, 5)}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to Flax's; the layouts are the same."""
    return resnet.flax_names(FAMILY, model)
