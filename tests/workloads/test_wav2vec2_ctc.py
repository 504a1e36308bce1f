"""Wav2Vec2 with CTC is the same function in PyTorch, in JAX and in transformers."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from lockstep.datasets import framing, keys
from lockstep.datasets.arrays import Ragged
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.engines.contract import Job
from lockstep.errors import UserError
from lockstep.training.feed import SharedFeed
from lockstep.workloads import wav2vec2
from lockstep.workloads.contract import Data
from lockstep.workloads.wav2vec2_ctc import spec
from tests import clips
from tests.workloads.bert_models import distance, on_jax, on_torch, small, weights

NAME, BIAS = "wav2vec2_ctc", "wav2vec2.encoder.layer_norm.bias"
LENGTHS = np.array([3200, 1600, 900, 2500, 400])
LETTERS = np.array([3, 4, 1, 5, 1])  # the second one needs five frames, and has four


def data(**facts: object) -> Data:
    known = {"letters": list(" ABCDEFG"), "longest": 3200, "longest_transcript": 6, **facts}
    arrays = {array.name: array for array in spec.stored(small(NAME)["model"])}
    return Data(name="clips", arrays=arrays, facts=known)


def rows() -> dict[str, Any]:
    audio = (4000 * keys.normal(int(LENGTHS.sum()), "audio") + 100).astype(np.int16)
    tokens = (keys.words(int(LETTERS.sum()), "tokens") % np.uint64(8)).astype(np.uint8)
    tokens[3:7] = [5, 5, 2, 1]
    ends = np.cumsum(LETTERS)
    needed = [framing.needed(tokens[e - n : e].tolist()) for e, n in zip(ends, LETTERS)]
    return {
        "audio": Ragged(values=audio, lengths=LENGTHS),
        "tokens": Ragged(values=tokens, lengths=LETTERS),
        "samples": LENGTHS.astype(np.int32),
        "needed": np.array(needed, np.int32),
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


def wide(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**batch, "audio": batch["audio"].astype(np.float64)}


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
    assert one["columns"]["labels"].tolist() == LETTERS.tolist()  # the error rates have all
    weight = spec.weight(rows(), {}, data())
    assert weight.tolist() == [1, 0, 1, 1, 1]
    for found in (one, other):
        np.testing.assert_array_equal(found["loss"]["ctc"] > 0, weight > 0)


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
        for row, count in enumerate(framing.count(LENGTHS)):
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


def test_a_published_file_gives_all_but_the_head() -> None:
    model = small(NAME)["model"]
    _, values = published(model)
    adopted = spec.start("x", values, model)
    wanted = {p.name: p.shape for p in spec.parameters(model) if not p.name.startswith("head.")}
    assert {name: value.shape for name, value in adopted.items()} == wanted
    weight = "parametrizations.weight.original"
    older = {
        n.replace(f"{weight}0", "weight_g").replace(f"{weight}1", "weight_v"): v
        for n, v in values.items()
    }
    assert older.keys() != values.keys()
    bare = {n.removeprefix("wav2vec2."): v for n, v in values.items()}
    without = {n: v for n, v in values.items() if "masked" not in n}
    for other in (older, bare, without):
        again = spec.start("x", other, model)
        for name in again:
            np.testing.assert_array_equal(again[name], adopted[name])
    assert "masked" not in spec.start("x", without, model)
    whole = weights(NAME, small(NAME))
    own = spec.start("x", {f"param/{n}": v.astype(np.float32) for n, v in whole.items()}, model)
    assert own.keys() == whole.keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lm_head.bias": None}, None),
        ({BIAS: None}, f"has no tensor {BIAS}"),
        ({"wav2vec2.adapter.weight": np.zeros(2, np.float32)}, "has the tensor wav2vec2.adapter"),
        ({BIAS: np.zeros(3, np.float32)}, r"has the shape \(3,\), but"),
        ({BIAS: np.zeros(64, np.int32)}, "is of type int32"),
        ({BIAS.removeprefix("wav2vec2."): np.zeros(64, np.float32)}, f"has two tensors for {BIAS}"),
    ],
)
def test_a_file_of_another_model_is_refused(change: dict, message: str | None) -> None:
    model = small(NAME)["model"]
    values = {n: v for n, v in (published(model)[1] | change).items() if v is not None}
    if message is None:
        spec.start("file", values, model)
        return
    with pytest.raises(UserError, match=message):
        spec.start("file", values, model)


def test_padding_makes_no_difference_with_layer_normalisation() -> None:
    """The same clips padded to another length; with group normalisation they are read."""
    found = {}
    for family in wav2vec2.FAMILIES:
        recipe, longer = (
            small(NAME, family=family, samples=n, mask_percent=0) for n in (3200, 4800)
        )
        own = weights(NAME, recipe)
        one, two = (
            on_torch(NAME, r, own, wide(batch(r, train=False)), train=False)
            for r in (recipe, longer)
        )
        found[family] = distance(one["loss"]["ctc"], two["loss"]["ctc"])
    assert found["layer"] < 1e-12 < 1e-3 < found["group"]


def test_masks_are_spans_of_real_frames() -> None:
    model = small(NAME, mask_percent=65, mask_length=10)["model"]
    words = keys.words(2000, "mask").astype("<u8").view("<i4").reshape(2000, 2)
    found = np.full(2000, 499)
    found[:3] = 9, 10, 0
    masks = wav2vec2.masks(words, found, 520, model)
    assert not masks[:, 499:].any() and not masks[[0, 2]].any() and masks[1, 10:].sum() == 0
    # As many as begin, less their overlaps: 1 - (1 - 32.4 / 490) ** 10, nearly.
    assert masks[3:, :499].mean() == pytest.approx(0.489, abs=0.004)
    edges = np.diff(masks[3:].astype(np.int8), axis=1, prepend=0, append=0)
    begins, ends = (np.nonzero(edges == sign)[1] for sign in (1, -1))
    assert (ends - begins).min() >= 10
    alone = wav2vec2.masks(words[5:6], found[5:6], 499, model)
    np.testing.assert_array_equal(alone[0], masks[5, :499])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preset": "huge"}, "model.preset is 'huge'; it must be one of tiny, small, base, large"),
        ({"family": "batch"}, "model.family is 'batch'"),
        ({"samples": 16100}, "model.samples is 16100; it must be a multiple of 320"),
        ({"samples": 320}, "and at least 640"),
        ({"lengths": 9}, "model.lengths is 9; it must be from 1 to 8"),
        ({"mask_length": 0}, "mask_length 0"),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
    ],
)
def test_a_recipe_is_checked(change: dict, message: str) -> None:
    assert spec.check(small(NAME), 1) is None
    assert message in (spec.check(small(NAME, **change), 1) or "")


def test_lengths_are_those_of_the_dataset() -> None:
    durations = [0, 0, 5, 0, 0, 7, 0, 0, 0, 1]
    known = data(durations=durations)
    assert spec.lengths(small(NAME), known) == ()
    assert spec.lengths(small(NAME, lengths=2), known) == (1920, 3200)
    assert spec.lengths(small(NAME, lengths=8), known) == (960, 1920, 3200)
    assert spec.lengths(small(NAME, lengths=8), data()) == ()


def test_operations_are_those_of_each_clip_at_its_own_length(tmp_path) -> None:
    manifest = clips.prepared(tmp_path)
    recipe, known = small(NAME, lengths=3), Data.of(read_manifest(manifest))
    variant = {"precision": "float32"}
    job = Job(workload=spec.WORKLOAD, recipe=recipe, variant=variant, data=known, window_steps=1)
    reader = Reader(manifest, "train")
    feed = SharedFeed(job, reader, 0)
    padded = [min(n for n in job.lengths if n >= own) for own in reader.lengths("audio")]
    model = recipe["model"]
    counted = [spec.forward_flops({**model, "samples": int(samples)}) for samples in padded]
    assert len(set(counted)) == 3
    assert feed.forward_flops == pytest.approx(sum(counted) / len(counted), rel=1e-12)
    assert feed.forward_flops < 0.9 * spec.forward_flops(model)
