"""`mnist_cnn` in PyTorch."""

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lockstep.workloads import naming, vision_torch
from lockstep.workloads.contract import Settings
from lockstep.workloads.mnist_cnn import spec
from lockstep.workloads.vision_torch import accuracy, normalise

MEAN, STD = (0.5,), (0.5,)


class MnistCnn(nn.Module):
    """Images ``(B, 1, 28, 28)`` to logits ``(B, 10)``."""

    def __init__(self) -> None:
        super().__init__()
        first, second = spec.CHANNELS
        self.conv1 = nn.Conv2d(1, first, spec.KERNEL)
        self.conv2 = nn.Conv2d(first, second, spec.KERNEL)
        self.fc1 = nn.Linear(spec.FEATURES, spec.HIDDEN)
        self.fc2 = nn.Linear(spec.HIDDEN, spec.CLASSES)

    def forward(self, images_bchw: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(images_bchw)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.fc1(torch.flatten(x, 1)))
        return self.fc2(x)


def build(model: Mapping[str, Any], settings: Settings) -> nn.Module:
    """Return the model; its initial weights are replaced before use."""
    return MnistCnn()


augment = functools.partial(vision_torch.augment, spec.shape)
forward, loss = vision_torch.forward, vision_torch.loss


def inputs(batch: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a batch with its images normalised, channels first."""
    return {**batch, "image": normalise(batch["image"], MEAN, STD, dtype)}


def metrics(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], recipe: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return each example's share of each metric, ``(B,)``; no columns."""
    return {"accuracy": accuracy(outputs["logits"], batch["label"])}, {}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to PyTorch's."""
    # The model flattens (20, 4, 4) maps in this order; neutral rows go height, width, channel.
    flattened = naming.Layout(
        axes=(3, 2, 0, 1),
        views=(
            (spec.FEATURES, spec.HIDDEN),
            (4, 4, spec.CHANNELS[1], spec.HIDDEN),
            (spec.HIDDEN, spec.FEATURES),
        ),
    )
    return {
        "conv1.kernel": ("conv1.weight", naming.CONVOLUTION),
        "conv1.bias": ("conv1.bias", None),
        "conv2.kernel": ("conv2.weight", naming.CONVOLUTION),
        "conv2.bias": ("conv2.bias", None),
        "dense1.kernel": ("fc1.weight", flattened),
        "dense1.bias": ("fc1.bias", None),
        "dense2.kernel": ("fc2.weight", naming.DENSE),
        "dense2.bias": ("fc2.bias", None),
    }
