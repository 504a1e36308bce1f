"""`lockstep.workloads.bert` in PyTorch: embeddings and layers, which both BERT workloads share."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lockstep.workloads import bert
from lockstep.workloads.contract import Settings


class Dense(nn.Linear):
    """A dense layer whose bias is added in float32 or better, and whose result has that type."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype is not torch.bfloat16:
            return functional.linear(x, self.weight, self.bias)
        return functional.linear(x, self.weight).float() + self.bias


class Norm(nn.Module):
    """Layer normalisation in float32 or better of what is float32 or better."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, bert.EPSILON)


class Layer(nn.Module):
    """Attention, then two dense layers: ``(B, S, H)`` to ``(B, S, H)``."""

    def __init__(self, number: int, model: Mapping[str, Any], settings: Settings) -> None:
        super().__init__()
        shape = bert.size(model)
        self.number, self.heads = number, shape.heads
        self.rate, self.attention_rate = model["dropout"], model["attention_dropout"]
        self.dtype = getattr(torch, settings.dtype)
        self.fused = bert.fused(model, settings)
        for name in ("query", "key", "value", "attended"):
            setattr(self, name, Dense(shape.width, shape.width))
        self.attended_norm = Norm(shape.width)
        self.inner = Dense(shape.width, shape.inner)
        self.outer = Dense(shape.inner, shape.width)
        self.outer_norm = Norm(shape.width)

    def forward(self, x: Tensor, mask: Tensor | None, random: Any) -> Tensor:
        x = self._added("attended", self._attention(x, mask, random), x, bert.ATTENDED, random)
        inner = functional.gelu(self.inner(x)).to(self.dtype)
        return self._added("outer", inner, x, bert.OUTER, random)

    def _added(self, name: str, branch: Tensor, x: Tensor, place: int, random: Any) -> Tensor:
        """Return what a branch's last dense layer adds to `x`, normalised."""
        site = bert.site(self.number, place)
        branch = random.dropout(getattr(self, name)(branch).to(self.dtype), site, self.rate)
        return getattr(self, f"{name}_norm")(wide(branch) + wide(x)).to(self.dtype)

    def _attention(self, x: Tensor, mask: Tensor | None, random: Any) -> Tensor:
        query, key, value = (
            getattr(self, name)(x).to(self.dtype).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )
        if self.fused:
            result = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            return result.transpose(1, 2).flatten(2)
        scores = wide(query @ key.transpose(2, 3)) * query.shape[3] ** -0.5
        if mask is not None:
            scores = torch.where(mask, scores, torch.finfo(scores.dtype).min)
        shares = functional.softmax(scores, dim=-1).to(self.dtype)
        site = bert.site(self.number, bert.PROBABILITIES)
        shares = random.dropout(shares, site, self.attention_rate)
        return (shares @ value).transpose(1, 2).flatten(2)


class Encoder(nn.Module):
    """What BERT models begin with; they inherit its parameters' names."""

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        super().__init__()
        shape = bert.size(model)
        self.rate, self.dtype = model["dropout"], getattr(torch, settings.dtype)
        self.word = nn.Embedding(model["vocabulary"], shape.width)
        self.position = nn.Embedding(model["positions"], shape.width)
        self.segment = nn.Embedding(model["segments"], shape.width)
        self.embedding_norm = Norm(shape.width)
        self.layers = nn.ModuleList(Layer(n, model, settings) for n in range(shape.layers))

    def encode(
        self, ids: Tensor, segments: Tensor | None, lengths: Tensor | None, random: Any
    ) -> Tensor:
        """Return what the last layer gives, of the computation's type ``(B, S, H)``.

        Args:
            ids: int32 ``(B, S)``.
            segments: int32 ``(B, S)``; all 0 if None.
            lengths: tokens before the padding, int32 ``(B,)``; all if None.
        """
        place = torch.arange(ids.shape[1], device=ids.device)
        kinds = self.segment(torch.zeros_like(ids) if segments is None else segments)
        x = self.embedding_norm(self.word(ids) + self.position(place) + kinds)
        x = random.dropout(x.to(self.dtype), bert.EMBEDDINGS, self.rate)
        mask = None if lengths is None else place < lengths[:, None, None, None]
        for layer in self.layers:
            x = layer(x, mask, random)
        return x


def wide(x: Tensor) -> Tensor:
    """Return `x` in float32 or better."""
    return x.float() if x.dtype is torch.bfloat16 else x
