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
from lockstep.workloads.vision_torch import accuracy, cross_entropy, normalise, top_k

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build(model: Mapping[str, Any], settings: Settings) -> nn.Module:
    """Return the model; its initial weights are replaced before use."""
    return ResNet(FAMILY, model)


augment = functools.partial(vision_torch.augment, resnet.example_shape)


def inputs(batch: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a batch with its images normalised, channels first."""
    return {**batch, "image": normalise(batch["image"], MEAN, STD, dtype)}


def forward(
    module: nn.Module, batch: Mapping[str, Tensor], random: Any, train: bool
) -> dict[str, Tensor]:
    """Return the logits, ``(B, classes)``."""
    return {"logits": module(batch["image"])}


def loss(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], recipe: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return each example's cross-entropy, ``(B,)``."""
    smoothing = recipe["label_smoothing"]
    return {"loss": cross_entropy(outputs["logits"], batch["label"], smoothing)}


def metrics(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], recipe: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return each example's share of each metric, ``(B,)``; no columns."""
    logits, label = outputs["logits"], batch["label"]
    return {"accuracy": accuracy(logits, label), "top5": top_k(logits, label, 5)}, {}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to torchvision's."""
    return resnet.torch_names(FAMILY, model)
