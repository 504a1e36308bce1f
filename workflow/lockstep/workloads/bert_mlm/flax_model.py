"""`bert_mlm` in Flax NNX."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array

from lockstep.workloads import bert, naming
from lockstep.workloads.bert_flax import Dense, Encoder, Norm, wide
from lockstep.workloads.bert_mlm import spec
from lockstep.workloads.contract import Settings


class Decoder(nnx.Module):
    """Products with the word embedding, and a bias: ``(…, H)`` to logits ``(…, vocabulary)``."""

    def __init__(self, vocabulary: int, settings: Settings) -> None:
        self.bias = nnx.Param(jnp.zeros((vocabulary,), settings.param_dtype))

    def __call__(self, x: Array, embedding: Array) -> Array:
        return wide(x @ embedding.astype(x.dtype).T) + self.bias[...]


class BertMlm(Encoder):
    """Masked rows to logits ``(B, predictions, vocabulary)``, float32 or better."""

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(model, settings)
        width = bert.size(model).width
        self.transform = Dense(width, width, settings)
        self.transform_norm = Norm(width, settings)
        self.decoder = Decoder(model["vocabulary"], settings)

    def __call__(self, ids: Array, positions: Array, random: Any) -> Array:
        x = self.encode(ids, None, None, random)
        # A row at a time: a gather over the whole batch would make a mesh collect the batch.
        x = jax.vmap(lambda row, at: row.at[at].get(mode="promise_in_bounds"))(x, positions)
        x = jax.nn.gelu(self.transform(x), approximate=False)
        return self.decoder(self.transform_norm(x).astype(self.dtype), self.word.embedding[...])


def build(model: Mapping[str, Any], settings: Settings) -> nnx.Module:
    """Return the model; its initial weights are replaced before use."""
    return BertMlm(model, settings)


def forward(
    module: nnx.Module, batch: Mapping[str, Array], random: Any, train: bool
) -> dict[str, Array]:
    """Return the logits of the masked positions."""
    return {"logits": module(batch["ids"], batch["positions"], random)}


def loss(
    outputs: Mapping[str, Array], batch: Mapping[str, Array], recipe: Mapping[str, Any]
) -> dict[str, Array]:
    """Return the cross-entropy of each row's masked tokens, summed, ``(B,)``."""
    logits = outputs["logits"]
    each = optax.softmax_cross_entropy_with_integer_labels(logits, batch["labels"])
    return {"masked": (each * batch["counts"].astype(each.dtype)).sum(axis=1)}


def metrics(
    outputs: Mapping[str, Array], batch: Mapping[str, Array], recipe: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return how many of each row's masked tokens were predicted, ``(B,)``."""
    right = outputs["logits"].argmax(axis=2) == batch["labels"]
    return {"correct": (right * batch["counts"]).sum(axis=1)}, {}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to Flax's."""
    return bert.flax_names(spec.parameters(model))
