"""`dlrm` in PyTorch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lockstep.workloads import naming
from lockstep.workloads.bert_torch import Dense, wide
from lockstep.workloads.contract import Settings
from lockstep.workloads.dlrm import spec


class Table(nn.Module):
    """Rows ``(rows, width)``, looked up in the parameters' type."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(rows, width))

    def forward(self, ids: Tensor) -> Tensor:
        return functional.embedding(ids, self.embedding)


class Dlrm(nn.Module):
    """Numbers ``(B, N)`` and ids ``(B, T)`` to logits ``(B,)``, float32 or better."""

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        super().__init__()
        shape = spec.shape(model)
        self.dtype, self.shared = getattr(torch, settings.dtype), shape.shared
        self.tables = nn.ModuleList(Table(rows, shape.width) for rows in shape.tables)
        layers = {name: Dense(*sizes) for name, sizes in shape.dense.items()}
        self.bottom = nn.ModuleList(x for name, x in layers.items() if name.startswith("bottom"))
        self.top = nn.ModuleList(x for name, x in layers.items() if name.startswith("top"))

    def forward(self, dense: Tensor, ids: Tensor) -> Tensor:
        x = dense.to(self.dtype)
        for layer in self.bottom:
            x = functional.relu(layer(x)).to(self.dtype)
        if self.shared:
            rows = self.tables[0](ids)
        else:
            rows = torch.stack([table(ids[:, k]) for k, table in enumerate(self.tables)], dim=1)
        vectors = torch.cat([x[:, None], rows.to(self.dtype)], dim=1)
        products = (vectors @ vectors.transpose(1, 2)).flatten(1)
        count = vectors.shape[1]
        one, other = torch.tril_indices(count, count, -1, device=x.device)
        x = torch.cat([x, products.index_select(1, one * count + other)], dim=1)
        for layer in self.top[:-1]:
            x = functional.relu(layer(x)).to(self.dtype)
        return wide(self.top[-1](x))[:, 0]


def build(model: Mapping[str, Any], settings: Settings) -> nn.Module:
    """Return the model; its initial weights are replaced before use."""
    return Dlrm(model, settings)


def inputs(batch: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a batch whose numbers have the parameters' type."""
    return {**batch, "dense": batch["dense"].to(dtype)}


def forward(
    module: nn.Module, batch: Mapping[str, Tensor], random: Any, train: bool
) -> dict[str, Tensor]:
    """Return the logits."""
    return {"logits": module(batch["dense"], batch["ids"])}


def loss(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], recipe: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return each example's loss, ``(B,)``."""
    logits = outputs["logits"]
    return {"loss": -functional.logsigmoid((2 * batch["click"].to(logits.dtype) - 1) * logits)}


def metrics(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], recipe: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return clicks, and what the area under the curve is made of, ``(B,)``."""
    click = batch["click"]
    return {"clicks": click}, {"logit": outputs["logits"], "click": click}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to PyTorch's."""
    return spec.names(model, "embedding", "weight", ".")
