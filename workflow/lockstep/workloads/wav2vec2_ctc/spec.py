"""What `wav2vec2_ctc` is, without any framework.

Wav2Vec2 (`lockstep.workloads.wav2vec2`) and a dense layer from each frame to letters and a blank,
trained by connectionist temporal classification to write down what is said in clips of speech, as
the sources `speech_digits`, `librispeech` and `common_voice` make them. It starts from random
weights, or from a pretrained file (`start` of the recipe), of which the head may be new.

A clip is normalised by its own mean and variance, from exact integer sums, and padded with zeros to
one of a few lengths, which the dataset's clips decide. A transcript that needs more frames than its
clip has cannot be aligned: its weight is 0, and its loss in both frameworks. In the error rates it
counts like any other.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lockstep.datasets import framing
from lockstep.workloads import bert, transcripts, wav2vec2, wav2vec2_checkpoint
from lockstep.workloads.contract import (
    KEY,
    Array,
    Arrays,
    Data,
    Draw,
    Metric,
    Model,
    Parameter,
    Recipe,
    Workload,
    key_draw,
)
from lockstep.workloads.recipe import recipe

FULL, FLOOR = 1 << 15, 1e-7  # a sample of 1; what is added to the variance of such samples


def parameters(model: Model) -> tuple[Parameter, ...]:
    """Return all parameters, in the order of the network."""
    head = bert.dense("head", wav2vec2.size(model).width, model["letters"] + 1)
    return (*wav2vec2.trunk(model), *head)


def forward_flops(model: Model) -> int:
    """Return two operations for each multiplication, of one padded clip."""
    head = 2 * wav2vec2.frames(model) * wav2vec2.size(model).width * (model["letters"] + 1)
    return wav2vec2.trunk_flops(model) + head


def stored(model: Model) -> tuple[Array, ...]:
    """Return the arrays of a dataset as sources of speech make them."""
    kind = np.min_scalar_type(max(model["letters"] - 1, 1)).name
    return (
        Array(name="audio", dtype="int16", ragged=True),
        Array(name="tokens", dtype=kind, ragged=True, high=model["letters"]),
        Array(name="samples", dtype="int32"),
        Array(name="needed", dtype="int32"),
    )


def padded(recipe: Recipe, data: Data) -> int:
    """Return the samples that the clips of a batch are padded to."""
    return data.length or recipe["model"]["samples"]


def lengths(recipe: Recipe, data: Data) -> tuple[int, ...]:
    """Return the lengths that batches are padded to, chosen by the dataset's clips alone."""
    most, durations = recipe["model"]["lengths"], tuple(data.facts.get("durations", ()))
    return framing.lengths(durations, most) if most > 1 and durations else ()


def arrays(recipe: Recipe, data: Data, train: bool) -> tuple[Array, ...]:
    """Return the arrays of a batch; `samples` and `labels` say how long audio and tokens are."""
    model, long = recipe["model"], padded(recipe, data)
    frames = framing.count(long)
    letters = data.facts.get("longest_transcript") or max(1, frames // 2)
    batch = (
        Array(name="audio", dtype="float32", shape=(long,)),
        Array(name="samples", dtype="int32", high=long + 1, blank=long),
        Array(name="tokens", dtype="int32", shape=(letters,), high=model["letters"]),
        Array(name="labels", dtype="int32", high=letters + 1, blank=1),
    )
    masked = Array(name="mask", dtype="uint8", shape=(frames,), high=2, covers=True)
    more = (masked,) if model["mask_percent"] else ()
    return (*batch, *more, KEY) if train else batch


def draws(recipe: Recipe, data: Data) -> tuple[Draw, ...]:
    """Return the draw that masks and dropout take their numbers from."""
    return (key_draw(),)


def prepare(
    rows: Mapping[str, Any], draws: Arrays, recipe: Recipe, data: Data, train: bool
) -> dict[str, np.ndarray]:
    """Normalise and pad clips, pad transcripts, and mask frames."""
    described = {array.name: array for array in arrays(recipe, data, train)}
    tokens, long = rows["tokens"], described["audio"].shape[0]
    batch = {
        "audio": normalised(rows["audio"], long),
        "samples": rows["samples"],
        "tokens": tokens.padded(described["tokens"].shape[0]).astype(np.int32),
        "labels": tokens.lengths.astype(np.int32),
    }
    if "mask" in described:
        frames = np.maximum(framing.count(rows["samples"]), 0)
        most = framing.count(long)
        batch["mask"] = wav2vec2.masks(draws["key"], frames, most, recipe["model"])
    return {**batch, "key": draws["key"]} if train else batch


def normalised(clips: Any, long: int) -> np.ndarray:
    """Return ragged int16 clips with mean 0 and variance 1, padded with 0, float32 ``(n, long)``.

    Of samples in [-1, 1): ``(x - mean) / sqrt(variance + 1e-7)``. Sums are of integers, and so
    exact: the result does not depend on an order of summation.
    """
    result = np.zeros((len(clips), long), np.float32)
    offsets = clips.offsets.tolist()
    for row, start, end in zip(result, offsets, offsets[1:]):
        x, count = clips.values[start:end].astype(np.int64), end - start
        total, squares = int(x.sum()), int(np.dot(x, x))
        variance = (count * squares - total * total) / (count * count * FULL * FULL)
        row[:count] = (x - total / count) * (1 / (FULL * (variance + FLOOR) ** 0.5))
    return result


def weight(rows: Mapping[str, Any], recipe: Recipe, data: Data) -> np.ndarray:
    """Return 1 for each transcript that can be aligned with its clip, int64 ``(n,)``."""
    return framing.feasible(rows["samples"], rows["needed"]).astype(np.int64)


def finish(sums: Mapping[str, float], columns: Arrays, recipe: Recipe) -> dict[str, float]:
    """Return the error rates of letters and of words."""
    return transcripts.rates(columns)


def tally(columns: Arrays) -> dict[str, np.ndarray]:
    """Return the integers that error rates are made of."""
    return transcripts.counted(columns["best"], columns["tokens"], columns["labels"])


def check(recipe: Recipe, devices: int) -> str | None:
    """Return what is wrong with a recipe, or None."""
    return wav2vec2.problem(recipe["model"])


def check_data(recipe: Recipe, data: Data) -> str | None:
    """Return why the model cannot learn from a dataset, or None."""
    model = recipe["model"]
    if not {"audio", "tokens", "samples", "needed"} <= data.arrays.keys():
        return "it holds no speech; use one of source speech_digits, librispeech or common_voice"
    letters, longest = len(data.facts["letters"]), data.facts["longest"]
    # JAX clamps a letter that is too large, PyTorch raises: neither may ever see one.
    if letters > model["letters"]:
        return (
            f"its transcripts have {letters} letters, but model.letters is {model['letters']}; "
            f"set model.letters: {letters}"
        )
    if longest > model["samples"]:
        enough = -(-longest // framing.STEP) * framing.STEP
        return (
            f"its longest clip has {longest} samples, but model.samples is {model['samples']}; set "
            f"model.samples: {enough}, or leave longer clips out by the dataset's options.longest"
        )
    return None


def start(where: str, tensors: Arrays, model: Model) -> dict[str, np.ndarray]:
    """Return the parameters that a staged file has (`lockstep.workloads.wav2vec2_checkpoint`)."""
    return wav2vec2_checkpoint.adopted(where, tensors, parameters(model))


WORKLOAD = Workload(
    name="wav2vec2_ctc",
    summary="recognition of speech by Wav2Vec2 and CTC",
    recipe=recipe(
        epochs=30,
        global_batch=32,
        evaluation_batch=64,
        optimizer={
            "name": "adamw",
            "learning_rate": 0.001,
            "beta2": 0.98,
            "epsilon": 1e-6,
            "weight_decay": 0.01,
            "clip_norm": 1.0,
        },
        schedule={"name": "linear", "warmup_epochs": 1.0},
        target={"metric": "character_error_rate", "value": 0.16},
        model=wav2vec2.MODEL,
    ),
    parameters=parameters,
    forward_flops=forward_flops,
    stored=stored,
    arrays=arrays,
    draws=draws,
    prepare=prepare,
    lengths=lengths,
    length_of="audio",
    at_length=lambda model, length: {**model, "samples": length or model["samples"]},
    weight=weight,
    weight_reads=("samples", "needed"),
    weight_unit="transcript",
    metrics=(
        Metric(name="character_error_rate", higher=False, unit=""),
        Metric(name="word_error_rate", higher=False, unit=""),
    ),
    finish=finish,
    tally=tally,
    check=check,
    check_data=check_data,
    start=start,
    small={
        "global_batch": 8,
        "evaluation_batch": 16,
        "model": {
            "letters": 8,
            "samples": 3200,
            "lengths": 1,
            "mask_length": 2,
            "mask_percent": 30,
        },
    },
)
