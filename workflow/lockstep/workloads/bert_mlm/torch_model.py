"""`bert_mlm` in PyTorch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lockstep.workloads import bert, naming
from lockstep.workloads.bert_mlm import spec
from lockstep.workloads.bert_torch import Dense, Encoder, Norm, wide
from lockstep.workloads.contract import Settings


class Decoder(nn.Module):
    """Products with the word embedding, and a bias: ``(n, H)`` to logits ``(n, vocabulary)``."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return wide(functional.linear(x, embedding)) + self.bias


class BertMlm(Encoder):
    """Masked rows to logits ``(B, predictions, vocabulary)``, float32 or better."""

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(model, settings)
        width = bert.size(model).width
        self.transform = Dense(width, width)
        self.transform_norm = Norm(width)
        self.decoder = Decoder(model["vocabulary"])

    def forward(self, ids: Tensor, positions: Tensor, random: Any) -> Tensor:
        x = self.encode(ids, None, None, random)
        index = positions.long()[:, :, None].expand(-1, -1, x.shape[2])
        x = functional.gelu(self.transform(x.gather(1, index)))
        return self.decoder(self.transform_norm(x).to(self.dtype), self.word.weight)


def build(model: Mapping[str, Any], settings: Settings) -> nn.Module:
    """Return the model; its initial weights are replaced before use."""
    return BertMlm(model, settings)


def forward(
    module: nn.Module, batch: Mapping[str, Tensor], random: Any, train: bool
) -> dict[str, Tensor]:
    """Return the logits of the masked positions."""
    return {"logits": module(batch["ids"], batch["positions"], random)}


def loss(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], recipe: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return the cross-entropy of each row's masked tokens, summed, ``(B,)``."""
    logits, labels = outputs["logits"], batch["labels"].long()
    # Flat: the deterministic kernel is of two dimensions.
    each = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    return {"masked": (each.view(labels.shape) * batch["counts"]).sum(1)}


def metrics(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], recipe: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return how many of each row's masked tokens were predicted, ``(B,)``."""
    right = outputs["logits"].argmax(2) == batch["labels"]
    return {"correct": (right * batch["counts"]).sum(1)}, {}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to PyTorch's."""
    return bert.torch_names(spec.parameters(model))
