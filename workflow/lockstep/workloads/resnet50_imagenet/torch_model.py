"""`resnet50_imagenet` in PyTorch."""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lockstep.workloads import naming, resnet, vision_torch
from lockstep.workloads.contract import Settings
from lockstep.workloads.resnet50_imagenet.spec import FAMILY
from lockstep.workloads.resnet_torch import ResNet
from lockstep.workloads.vision_torch import normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build(model: Mapping[str, Any], settings: Settings) -> nn.Module:
    """Return the model; its initial weights are replaced before use."""
    return ResNet(FAMILY, model)


augment = functools.partial(vision_torch.augment, resnet.example_shape)
forward, loss = vision_torch.forward, vision_torch.loss
metrics = vision_torch.accuracy_and_top5


def inputs(batch: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a batch with its images normalised, channels first."""
    return {**batch, "image": normalise(batch["image"], MEAN, STD, dtype)}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to torchvision's."""
    return resnet.torch_names(FAMILY, model)
