"""`resnet50_imagenet` in PyTorch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lockstep.workloads import naming, resnet
from lockstep.workloads.resnet50_imagenet.spec import FAMILY
from lockstep.workloads.resnet_torch import ResNet
from lockstep.workloads.vision_torch import accuracy, cross_entropy, normalise, top_k

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def build(model: Mapping[str, Any]) -> nn.Module:
    """Return the model; its initial weights are replaced before use."""
    return ResNet(FAMILY, model)


def inputs(batch: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
    """Return what the model takes, from images uint8 ``(B, size, size, 3)``."""
    return normalise(batch["images"], MEAN, STD, dtype)


def losses(logits: Tensor, batch: Mapping[str, Tensor], recipe: Mapping[str, Any]) -> Tensor:
    """Return each example's loss, ``(B,)``."""
    return cross_entropy(logits, batch["labels"], recipe["label_smoothing"])


def metrics(logits: Tensor, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return each example's share of each metric, ``(B,)``."""
    labels = batch["labels"]
    return {"accuracy": accuracy(logits, labels), "top5": top_k(logits, labels, 5)}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to torchvision's."""
    return resnet.torch_names(FAMILY, model)
