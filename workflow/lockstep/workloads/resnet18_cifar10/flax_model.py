"""`resnet18_cifar10` in Flax."""

import functools
from collections.abc import Mapping
from typing import Any

from jax import Array
from jax.typing import DTypeLike

from lockstep.workloads import naming, resnet, resnet_flax, vision_flax
from lockstep.workloads.resnet18_cifar10.spec import FAMILY
from lockstep.workloads.vision_flax import normalise

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

build = functools.partial(resnet_flax.build, FAMILY)

augment = functools.partial(vision_flax.augment, resnet.example_shape)
forward, loss = vision_flax.forward, vision_flax.loss
metrics = vision_flax.accuracy_and_top5


def inputs(batch: Mapping[str, Array], dtype: DTypeLike) -> dict[str, Array]:
    """Return a batch with its images normalised."""
    return {**batch, "image": normalise(batch["image"], MEAN, STD, dtype)}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to Flax's; the layouts are the same."""
    return resnet.flax_names(FAMILY, model)
