"""`dlrm` in Flax NNX."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from lockstep.workloads import naming
from lockstep.workloads.bert_flax import Dense, Embedding, wide
from lockstep.workloads.contract import Settings
from lockstep.workloads.dlrm import spec


class Dlrm(nnx.Module):
    """Numbers ``(B, N)`` and ids ``(B, T)`` to logits ``(B,)``, float32 or better."""

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        shape = spec.shape(model)
        self.dtype, self.shared = jnp.dtype(settings.dtype), shape.shared
        self.tables = nnx.List([Embedding(rows, shape.width, settings) for rows in shape.tables])
        layers = {name: Dense(*sizes, settings) for name, sizes in shape.dense.items()}
        self.bottom = nnx.List([x for name, x in layers.items() if name.startswith("bottom")])
        self.top = nnx.List([x for name, x in layers.items() if name.startswith("top")])

    def __call__(self, dense: Array, ids: Array) -> Array:
        x = dense.astype(self.dtype)
        for layer in self.bottom:
            x = jax.nn.relu(layer(x)).astype(self.dtype)
        if self.shared:
            rows = self.tables[0](ids)
        else:
            rows = jnp.stack([table(ids[:, k]) for k, table in enumerate(self.tables)], axis=1)
        vectors = jnp.concatenate([x[:, None], rows.astype(self.dtype)], axis=1)
        products = (vectors @ vectors.transpose(0, 2, 1)).reshape(len(x), -1)
        one, other = np.tril_indices(vectors.shape[1], -1)
        pairs = products[:, one * vectors.shape[1] + other]
        x = jnp.concatenate([x, pairs], axis=1)
        for layer in list(self.top)[:-1]:
            x = jax.nn.relu(layer(x)).astype(self.dtype)
        return wide(self.top[-1](x))[:, 0]


def build(model: Mapping[str, Any], settings: Settings) -> nnx.Module:
    """Return the model; its initial weights are replaced before use."""
    return Dlrm(model, settings)


def inputs(batch: Mapping[str, Array], dtype: DTypeLike) -> dict[str, Array]:
    """Return a batch whose numbers have the parameters' type."""
    return {**batch, "dense": batch["dense"].astype(dtype)}


def forward(
    module: nnx.Module, batch: Mapping[str, Array], random: Any, train: bool
) -> dict[str, Array]:
    """Return the logits."""
    return {"logits": module(batch["dense"], batch["ids"])}


def loss(
    outputs: Mapping[str, Array], batch: Mapping[str, Array], recipe: Mapping[str, Any]
) -> dict[str, Array]:
    """Return each example's loss, ``(B,)``."""
    logits = outputs["logits"]
    return {"loss": -jax.nn.log_sigmoid((2 * batch["click"].astype(logits.dtype) - 1) * logits)}


def metrics(
    outputs: Mapping[str, Array], batch: Mapping[str, Array], recipe: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return clicks, and what the area under the curve is made of, ``(B,)``."""
    click = batch["click"]
    return {"clicks": click.astype(jnp.float32)}, {"logit": outputs["logits"], "click": click}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to Flax's; the layouts are the same."""
    return spec.names(model, "embedding", "kernel", "/")
