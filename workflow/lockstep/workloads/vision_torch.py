"""What image workloads share in PyTorch: normalisation, forward pass, loss, metrics."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lockstep.workloads import augmentation_torch, vision
from lockstep.workloads.contract import Data, Recipe


def augment(
    shape: vision.ShapeOf, batch: Mapping[str, Tensor], recipe: Recipe, data: Data
) -> dict[str, Tensor]:
    """Return a batch whose images are as the model is shown them, uint8; without crops."""
    kind = vision.kind(shape, recipe, data)
    image = augmentation_torch.apply(batch["image"], batch.get("crop"), kind)
    return {**{name: array for name, array in batch.items() if name != "crop"}, "image": image}


def normalise(
    images_bhwc: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype
) -> Tensor:
    """Return uint8 images as ``(x / 255 - mean) / std``, channels first, of `dtype`.

    Mean and deviation are per channel and refer to pixels scaled to [0, 1].
    """
    x = images_bhwc.to(dtype)
    scales, shifts = [1 / (255 * s) for s in std], [-m / s for m, s in zip(mean, std)]
    if len(scales) == 1:  # numbers spare two small tensors a step
        return (x * scales[0] + shifts[0]).permute(0, 3, 1, 2)
    scale = torch.tensor(scales, dtype=dtype, device=x.device)
    shift = torch.tensor(shifts, dtype=dtype, device=x.device)
    return (x * scale + shift).permute(0, 3, 1, 2)


def forward(
    module: torch.nn.Module, batch: Mapping[str, Tensor], random: Any, train: bool
) -> dict[str, Tensor]:
    """Return the logits, ``(B, classes)``."""
    return {"logits": module(batch["image"])}


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
    """Return each example's cross-entropy, ``(B,)``, computed in float32 or better."""
    if logits.dtype is torch.bfloat16:
        logits = logits.float()
    return functional.cross_entropy(
        logits, labels.long(), reduction="none", label_smoothing=label_smoothing
    )


def loss(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], recipe: Recipe
) -> dict[str, Tensor]:
    """Return each example's cross-entropy, ``(B,)``."""
    smoothing = recipe["label_smoothing"]
    return {"loss": cross_entropy(outputs["logits"], batch["label"], smoothing)}


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return whether each example's largest logit is its label's, as 0 or 1, ``(B,)``."""
    return (logits.argmax(dim=1) == labels).to(torch.float32)


def top_k(logits: Tensor, labels: Tensor, k: int) -> Tensor:
    """Return whether each example's label is among its `k` largest logits, ``(B,)``.

    Of equal logits the first counts as the larger one, and NaN as the largest, as for `argmax`.
    """
    own = logits.gather(1, labels.long()[:, None])
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    ahead = ~(logits <= own) | ((logits == own) & earlier)
    return (ahead.sum(dim=1) < k).to(torch.float32)


def accuracy_and_top5(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], recipe: Recipe
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return each example's share of both metrics, ``(B,)``; no columns."""
    logits, label = outputs["logits"], batch["label"]
    return {"accuracy": accuracy(logits, label), "top5": top_k(logits, label, 5)}, {}
