"""Wav2Vec2 with CTC is the same function in PyTorch, in JAX and in transformers."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from lockstep.datasets import keys, speech
from lockstep.datasets.arrays import Ragged
from lockstep.workloads import wav2vec2
from lockstep.workloads.contract import Data
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


@pytest.mark.parametrize(("family", "convolution"), [("group", "native"), ("layer", "im2col")])
def test_both_frameworks_compute_the_same_in_float64(family: str, convolution: str) -> None:
    one, other = both(small(NAME, family=family), convolution=convolution)
    assert distance(one["outputs"]["logits"], other["outputs"]["logits"]) < 1e-13
    np.testing.assert_allclose(one["loss"]["ctc"], other["loss"]["ctc"], rtol=1e-12)
    for name, gradient in one["gradients"].items():
        if not name.endswith("key.bias"):
            assert distance(gradient, other["gradients"][name]) < 1e-11, name
    for name, column in one["columns"].items():
        np.testing.assert_array_equal(column, other["columns"][name])


@pytest.mark.parametrize("family", wav2vec2.FAMILIES)
@pytest.mark.parametrize("kernel", [16, 15], ids=["even", "odd"])
@pytest.mark.parametrize("attention", ["written", "fused"])
def test_transformers_own_model_gives_the_same_logits(family, kernel, attention, monkeypatch):
    """Of clips of several lengths, padded and masked; in float64 and in float32."""
    tiny = dataclasses.replace(wav2vec2.PRESETS["tiny"], kernel=kernel)
    monkeypatch.setitem(wav2vec2.PRESETS, "tiny", tiny)
    recipe = small(NAME, family=family, attention_dropout=0.0, mask_percent=0)
    theirs, values = published(recipe["model"])
    adopted = spec.start("x", values, recipe["model"])
    adopted |= {"head.kernel": values["lm_head.weight"].T, "head.bias": values["lm_head.bias"]}
    given = batch(recipe, train=False)
    real = torch.arange(given["audio"].shape[1]) < torch.from_numpy(given["samples"])[:, None]
    for precision, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        theirs.to(getattr(torch, precision))
        theirs.load_state_dict({n: torch.from_numpy(v) for n, v in values.items()})
        with torch.no_grad():
            audio = torch.from_numpy(given["audio"]).to(getattr(torch, precision))
            expected = theirs(audio, attention_mask=real.long()).logits.numpy()
        given["audio"], own = audio.numpy(), {n: v.astype(precision) for n, v in adopted.items()}
        found = on_torch(NAME, recipe, own, given, precision, False, attention=attention)
        for row, count in enumerate(speech.frames(LENGTHS)):
            logits = found["outputs"]["logits"][row, :count]
            assert np.abs(expected[row, :count] - logits).max() < tolerance


def published(model: dict[str, Any]) -> tuple[Any, dict[str, np.ndarray]]:
    """Transformers' model of the same sizes, and its weights: random, and float32."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    shape = wav2vec2.size(model)
    config = transformers.Wav2Vec2Config(
        vocab_size=model["letters"] + 1,
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.inner,
        conv_dim=(shape.channels,) * 7,
        conv_bias=model["family"] == "layer",
        feat_extract_norm=model["family"],
        do_stable_layer_norm=model["family"] == "layer",
        num_conv_pos_embeddings=shape.kernel,
        num_conv_pos_embedding_groups=shape.groups,
    )
    theirs = transformers.Wav2Vec2ForCTC(config).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            parameter.normal_(1.0 if "original0" in name else 0.0, 0.2)
    return theirs, {n: t.detach().numpy().copy() for n, t in theirs.state_dict().items()}
