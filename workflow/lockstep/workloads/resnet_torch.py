"""Residual networks in PyTorch (`lockstep.workloads.resnet`), with torchvision's names."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from lockstep.workloads import resnet
from lockstep.workloads.batch_norm_torch import BatchNorm


def _convolution(layer: resnet.Layer) -> nn.Conv2d:
    return nn.Conv2d(
        layer.inner, layer.outer, layer.size, layer.stride, padding=layer.size // 2, bias=False
    )


class _Block(nn.Module):
    """ReLU between a branch's layers, and after the shortcut is added."""

    def __init__(self, block: resnet.Block, scope: str) -> None:
        super().__init__()
        self.length = len(block.branch)
        for k, layer in enumerate(block.branch, start=1):
            self.add_module(f"conv{k}", _convolution(layer))
            self.add_module(f"bn{k}", BatchNorm(layer.outer, scope))
        self.downsample: nn.Module | None = None
        if block.shortcut:
            norm = BatchNorm(block.shortcut.outer, scope)
            self.downsample = nn.Sequential(_convolution(block.shortcut), norm)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for k in range(1, self.length + 1):
            y = self.get_submodule(f"bn{k}")(self.get_submodule(f"conv{k}")(y))
            if k < self.length:
                y = functional.relu(y)
        return functional.relu(y + (self.downsample(x) if self.downsample else x))


class ResNet(nn.Module):
    """Images ``(B, 3, H, W)`` to logits ``(B, classes)``."""

    def __init__(self, family: resnet.Family, model: resnet.Model) -> None:
        super().__init__()
        first, scope = resnet.stem(family, model), model["batch_norm"]
        self.pools = family.large_stem
        self.conv1 = _convolution(first)
        self.bn1 = BatchNorm(first.outer, scope)
        stages: dict[str, list[_Block]] = {}
        for block in resnet.blocks(family, model):
            stages.setdefault(block.native.split(".")[0], []).append(_Block(block, scope))
        self.stages = tuple(stages)
        for name, blocks in stages.items():
            self.add_module(name, nn.Sequential(*blocks))
        self.fc = nn.Linear(resnet.features(family, model), model["classes"])

    def forward(self, images_bchw: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(images_bchw)))
        if self.pools:
            x = functional.max_pool2d(x, 3, 2, 1)
        for name in self.stages:
            x = self.get_submodule(name)(x)
        return self.fc(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))
