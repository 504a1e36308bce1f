"""`bert_classify` in Flax NNX."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from lockstep.workloads import bert, naming
from lockstep.workloads.bert_classify import spec
from lockstep.workloads.bert_flax import Dense, Encoder
from lockstep.workloads.contract import Settings
from lockstep.workloads.vision_flax import accuracy, loss

__all__ = ["build", "forward", "loss", "metrics", "names"]


class BertClassifier(Encoder):
    """Rows of sentences to logits ``(B, classes)``, float32 or better."""

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(model, settings)
        width = bert.size(model).width
        self.pooler = Dense(width, width, settings)
        self.classifier = Dense(width, model["classes"], settings)

    def __call__(self, ids: Array, segments: Array, lengths: Array, random: Any) -> Array:
        first = self.encode(ids, segments, lengths, random)[:, 0]
        pooled = jnp.tanh(self.pooler(first)).astype(self.dtype)
        return self.classifier(random.dropout(pooled, bert.POOLED, self.rate))


def build(model: Mapping[str, Any], settings: Settings) -> nnx.Module:
    """Return the model; its initial weights are replaced before use."""
    return BertClassifier(model, settings)


def forward(
    module: nnx.Module, batch: Mapping[str, Array], random: Any, train: bool
) -> dict[str, Array]:
    """Return the logits."""
    return {"logits": module(batch["ids"], batch["segments"], batch["lengths"], random)}


def metrics(
    outputs: Mapping[str, Array], batch: Mapping[str, Array], recipe: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return whether each example's class was found, ``(B,)``."""
    return {"correct": accuracy(outputs["logits"], batch["label"])}, {}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to Flax's."""
    return bert.flax_names(spec.parameters(model))
