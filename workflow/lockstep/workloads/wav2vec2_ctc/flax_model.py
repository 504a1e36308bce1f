"""`wav2vec2_ctc` in Flax NNX."""

from collections.abc import Mapping
from typing import Any

from flax import nnx
from jax import Array
from jax.typing import DTypeLike

from lockstep.workloads import bert, ctc_flax, naming, wav2vec2
from lockstep.workloads.bert_flax import Dense
from lockstep.workloads.contract import Settings
from lockstep.workloads.wav2vec2_ctc import spec
from lockstep.workloads.wav2vec2_flax import Trunk


class Wav2Vec2Ctc(Trunk):
    """Clips to logits ``(B, T, letters + 1)``, float32 or better; output 0 is the blank."""

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(model, settings)
        self.head = Dense(wav2vec2.size(model).width, model["letters"] + 1, settings)

    def __call__(self, audio: Array, samples: Array, mask: Array | None, random: Any) -> Array:
        x = self.encode(audio, samples, mask, random)
        return self.head(random.dropout(x, wav2vec2.FINAL, self.rate))


def build(model: Mapping[str, Any], settings: Settings) -> nnx.Module:
    """Return the model; its initial weights are replaced before use."""
    return Wav2Vec2Ctc(model, settings)


def inputs(batch: Mapping[str, Array], dtype: DTypeLike) -> dict[str, Array]:
    """Return a batch whose samples have the parameters' type."""
    return {**batch, "audio": batch["audio"].astype(dtype)}


def forward(
    module: nnx.Module, batch: Mapping[str, Array], random: Any, train: bool
) -> dict[str, Array]:
    """Return the logits of all frames."""
    mask = batch["mask"] if train and "mask" in batch else None
    return {"logits": module(batch["audio"], batch["samples"], mask, random)}


def loss(
    outputs: Mapping[str, Array], batch: Mapping[str, Array], recipe: Mapping[str, Any]
) -> dict[str, Array]:
    """Return each transcript's negative log-probability, ``(B,)``."""
    labels = batch["tokens"], batch["labels"], batch["samples"]
    return {"ctc": ctc_flax.ctc(outputs["logits"], *labels)}


def metrics(
    outputs: Mapping[str, Array], batch: Mapping[str, Array], recipe: Mapping[str, Any]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the likeliest output of each frame, and the transcripts."""
    best = ctc_flax.best(outputs["logits"], batch["samples"])
    return {}, {"best": best, "tokens": batch["tokens"], "labels": batch["labels"]}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to Flax's; the layouts are the same."""
    return bert.flax_names(spec.parameters(model))
