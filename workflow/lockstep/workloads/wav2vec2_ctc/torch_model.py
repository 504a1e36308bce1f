"""`wav2vec2_ctc` in PyTorch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lockstep.workloads import ctc_torch, naming, wav2vec2
from lockstep.workloads.bert_torch import Dense
from lockstep.workloads.contract import Settings
from lockstep.workloads.wav2vec2_ctc import spec
from lockstep.workloads.wav2vec2_torch import Trunk


class Wav2Vec2Ctc(Trunk):
    """Clips to logits ``(B, T, letters + 1)``, float32 or better; output 0 is the blank."""

    def __init__(self, model: Mapping[str, Any], settings: Settings) -> None:
        super().__init__(model, settings)
        self.head = Dense(wav2vec2.size(model).width, model["letters"] + 1)

    def forward(self, audio: Tensor, samples: Tensor, mask: Tensor | None, random: Any) -> Tensor:
        x = self.encode(audio, samples, mask, random)
        return self.head(random.dropout(x, wav2vec2.FINAL, self.rate))


def build(model: Mapping[str, Any], settings: Settings) -> nn.Module:
    """Return the model; its initial weights are replaced before use."""
    return Wav2Vec2Ctc(model, settings)


def inputs(batch: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Return a batch whose samples have the parameters' type."""
    return {**batch, "audio": batch["audio"].to(dtype)}


def forward(
    module: nn.Module, batch: Mapping[str, Tensor], random: Any, train: bool
) -> dict[str, Tensor]:
    """Return the logits of all frames."""
    mask = batch["mask"] if train and "mask" in batch else None
    return {"logits": module(batch["audio"], batch["samples"], mask, random)}


def loss(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], recipe: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return each transcript's negative log-probability, ``(B,)``."""
    labels = batch["tokens"], batch["labels"], batch["samples"]
    return {"ctc": ctc_torch.ctc(outputs["logits"], *labels)}


def metrics(
    outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], recipe: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the likeliest output of each frame, and the transcripts."""
    best = ctc_torch.best(outputs["logits"], batch["samples"])
    return {}, {"best": best, "tokens": batch["tokens"], "labels": batch["labels"]}


def names(model: Mapping[str, Any]) -> naming.Names:
    """Map neutral names to PyTorch's."""
    return wav2vec2.torch_names(spec.parameters(model))
