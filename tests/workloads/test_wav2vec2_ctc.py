"""Wav2Vec2 with CTC is the same function in PyTorch, in JAX and in transformers."""

from typing import Any

import numpy as np
import pytest
import torch

from lockstep.datasets import keys, speech
from lockstep.datasets.arrays import Ragged
from lockstep.workloads import wav2vec2
from lockstep.workloads.contract import Array, Data
from lockstep.workloads.wav2vec2_ctc import spec
from tests.workloads.bert_models import distance, on_jax, on_torch, small, weights

NAME = "wav2vec2_ctc"
LENGTHS = np.array([3200, 1700, 900, 2500, 400])
LETTERS = np.array([3, 4, 1, 5, 1])  # the second one needs five frames


def data(**facts: object) -> Data:
    known = {"letters": list(" ABCDEFG"), "longest": 3200, "longest_transcript": 6, **facts}
    arrays = {array.name: array for array in spec.stored(small(NAME)["model"])}
    return Data(name="clips", arrays=arrays, facts=known)


def rows() -> dict[str, Any]:
    audio = (4000 * keys.normal(int(LENGTHS.sum()), "audio") + 100).astype(np.int16)
    tokens = (keys.words(int(LETTERS.sum()), "tokens") % np.uint64(8)).astype(np.uint8)
    tokens[3:7] = [5, 5, 2, 1]
    ends = np.cumsum(LETTERS)
    needed = [speech.needed(tokens[e - n : e].tolist()) for e, n in zip(ends, LETTERS)]
    return {
        "audio": Ragged(values=audio, lengths=LENGTHS),
        "tokens": Ragged(values=tokens, lengths=LETTERS),
        "samples": LENGTHS.astype(np.int32),
        "needed": np.array(needed, np.uint16),
    }


def batch(recipe: dict[str, Any], train: bool = True) -> dict[str, np.ndarray]:
    [draw] = spec.draws(recipe, data())
    count = len(LENGTHS)
    made = spec.prepare(rows(), {"key": draw.make(count, 0, 0)}, recipe, data(), train)
    declared = spec.arrays(recipe, data(), train)
    assert {a.name: (a.dtype, (count, *a.shape)) for a in declared} == {
        name: (array.dtype.name, array.shape) for name, array in made.items()
    }
    return {**made, "real": np.ones(count, np.float32)}


def both(recipe: dict[str, Any], precision: str = "float64", train: bool = True, **variant: str):
    """What each framework computes of one batch."""
    given = batch(recipe, train)
    own = weights(NAME, recipe)
    given["audio"] = given["audio"].astype("float64" if precision == "float64" else "float32")
    variant = {"convolution": "native", **variant}
    return [f(NAME, recipe, own, given, precision, train, **variant) for f in (on_torch, on_jax)]


@pytest.mark.parametrize("family", wav2vec2.FAMILIES)
@pytest.mark.parametrize("convolution", ["native", "im2col"])
def test_both_frameworks_compute_the_same_in_float64(family: str, convolution: str) -> None:
    one, other = both(small(NAME, family=family), convolution=convolution)
    assert distance(one["outputs"]["logits"], other["outputs"]["logits"]) < 1e-13
    np.testing.assert_allclose(one["loss"]["ctc"], other["loss"]["ctc"], rtol=1e-12)
    for name, gradient in one["gradients"].items():
        if not name.endswith("key.bias"):
            assert distance(gradient, other["gradients"][name]) < 1e-11, name
    for name, column in one["columns"].items():
        np.testing.assert_array_equal(column, other["columns"][name])
