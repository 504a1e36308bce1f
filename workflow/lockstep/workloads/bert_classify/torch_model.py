"""`bert_classify` in PyTorch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lockstep.workloads import bert, naming
from lockstep.workloads.bert_classify import spec
from lockstep.workloads.bert_torch import Dense, Encoder
from lockstep.workloads.contract import Settings
from lockstep.workloads.vision_torch import accuracy, loss

__all__ = ["build", "forward", "loss", "metrics", "names"]


class BertClassifier(Encoder):
    """Rows of sentences to logits ``(B, classes)``, float32 or better."""

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(model, settings)
        width = bert.size(model).width
        self.pooler = Dense(width, width)
        self.classifier = Dense(width, model["classes"])

    def forward(self, ids: Tensor, segments: Tensor, lengths: Tensor, random: Any) -> Tensor:
        first = self.encode(ids, segments, lengths, random)[:, 0]
        pooled = torch.tanh(self.pooler(first)).to(self.dtype)
        return self.classifier(random.dropout(pooled, bert.POOLED, self.rate))


def build(model: Mapping[str, Any], settings: Settings) -> nn.Module:
    """Return the model; its initial weights are replaced before use."""
    return BertClassifier(model, settings)


def forward(
    module: nn.Module, batch: Mapping[str, Tensor], random: Any, train: bool
) -> dict[str, Tensor]:
    """Return the logits."""
    return {"logits": module(batch["ids"], batch["segments"], batch["lengths"], random)}


def metrics(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], recipe: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return whether each example's class was found, ``(B,)``."""
    return {"correct": accuracy(outputs["logits"], batch["label"])}, {}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to PyTorch's."""
    return bert.torch_names(spec.parameters(model))
