"""BERT's fine-tuning is the same function in PyTorch, in JAX and in transformers."""

from typing import Any

import numpy as np
import pytest
import torch

from lockstep.datasets import keys
from lockstep.workloads import bert, bert_checkpoint
from lockstep.workloads.bert_classify import spec
from lockstep.workloads.contract import Array, Data
from tests.workloads.bert_models import distance, on_jax, on_torch, small, weights

NAME = "bert_classify"
ROWS = 6


def data(recipe: dict[str, Any], **facts: object) -> Data:
    length = recipe["model"]["length"]
    whole = [Array(name=name, dtype="uint16") for name in ("first", "second")]
    tokens = Array(name="tokens", dtype="uint16", shape=(length,))
    stored = (tokens, *whole, Array(name="label", dtype="int32"))
    known = {"vocabulary": 120, "labels": ["0", "1"], "sentences": 2, **facts}
    return Data(name="pairs", arrays={a.name: a for a in stored}, facts=known)


def batch(recipe: dict[str, Any], train: bool = True) -> dict[str, np.ndarray]:
    length = recipe["model"]["length"]
    first = np.array([3, 10, 30, 5, 8, 2], np.uint16)
    second = np.array([4, 0, 2, 0, 8, 30], np.uint16)
    drawn = keys.words(ROWS * length, "tokens").reshape(ROWS, length)
    tokens = (5 + drawn % np.uint64(115)).astype(np.uint16)
    tokens[np.arange(length) >= (first + second)[:, None]] = 0
    label = np.array([0, 1, 1, 0, 1, 0], np.int32)
    stored = {"tokens": tokens, "first": first, "second": second, "label": label}
    [draw] = spec.draws(recipe, data(recipe))
    made = spec.prepare(stored, {"key": draw.make(ROWS, 0, 0)}, recipe, data(recipe), train)
    declared = spec.arrays(recipe, data(recipe), train)
    assert {a.name: (a.dtype, (ROWS, *a.shape)) for a in declared} == {
        name: (array.dtype.name, array.shape) for name, array in made.items()
    }
    return {**made, "real": np.ones(ROWS, np.float32)}


def test_segments_and_lengths_are_those_of_the_sentences() -> None:
    made = batch(small(NAME))
    assert made["lengths"].tolist() == [7, 10, 32, 5, 16, 32]
    assert made["segments"].sum(axis=1).tolist() == [4, 0, 2, 0, 8, 30]
    assert made["segments"][0, 3:7].all()


@pytest.mark.parametrize("train", [True, False], ids=["dropout", "evaluation"])
def test_both_frameworks_compute_the_same_in_float64(train: bool) -> None:
    recipe = small(NAME)
    values, given = weights(NAME, recipe), batch(recipe)
    one, other = (f(NAME, recipe, values, given, train=train) for f in (on_torch, on_jax))
    assert distance(one["outputs"]["logits"], other["outputs"]["logits"]) < 1e-12
    for name, gradient in one["gradients"].items():
        if not name.endswith("key.bias"):
            assert distance(gradient, other["gradients"][name]) < 1e-11, name
    np.testing.assert_array_equal(one["sums"]["correct"], other["sums"]["correct"])


@pytest.mark.parametrize("attention", ["written", "fused"])
def test_padding_makes_no_difference(attention: str) -> None:
    recipe = small(NAME, attention_dropout=0.0)
    values, given = weights(NAME, recipe), batch(recipe)
    other = {**given, "ids": given["ids"].copy()}
    padded = np.arange(recipe["model"]["length"]) >= given["lengths"][:, None]
    other["ids"][padded] = 7
    for function in (on_torch, on_jax):
        one, two = (
            function(NAME, recipe, values, b, "float32", train=False, attention=attention)
            for b in (given, other)
        )
        assert distance(one["outputs"]["logits"], two["outputs"]["logits"]) < 1e-6
    assert (padded.sum() > 0) and (other["ids"] != given["ids"]).any()


def test_transformers_own_model_gives_the_same_logits() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    recipe = small(NAME)
    model, shape = recipe["model"], bert.size(recipe["model"])
    config = transformers.BertConfig(
        vocab_size=model["vocabulary"],
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.inner,
        max_position_embeddings=model["positions"],
        num_labels=model["classes"],
    )
    theirs = transformers.BertForSequenceClassification(config).double().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.2)
    values = {n: t.detach().numpy() for n, t in theirs.state_dict().items()}
    # A checkpoint is float32; this one is made of numbers that are.
    values = {n: v.astype(np.float32) for n, v in values.items()}
    theirs.load_state_dict({n: torch.from_numpy(v.astype(np.float64)) for n, v in values.items()})
    adopted = bert_checkpoint.adopted("x", values, spec.parameters(model))
    given = batch(recipe)
    real = torch.arange(model["length"]) < torch.from_numpy(given["lengths"])[:, None]
    with torch.no_grad():
        expected = theirs(
            torch.from_numpy(given["ids"]).long(),
            attention_mask=real.long(),
            token_type_ids=torch.from_numpy(given["segments"]).long(),
        ).logits.numpy()
    exact = {n: v.astype(np.float64) for n, v in adopted.items()}
    for function in (on_torch, on_jax):
        found = function(NAME, recipe, exact, given, train=False)
        assert distance(expected, found["outputs"]["logits"]) < 1e-12


def test_a_dataset_that_does_not_fit_is_told() -> None:
    recipe = small(NAME)
    assert spec.check_data(recipe, data(recipe)) is None
    three = data(recipe, labels=["a", "b", "c"])
    assert "set model.classes: 3" in (spec.check_data(recipe, three) or "")
    one = small(NAME, segments=1)
    assert "pairs of sentences" in (spec.check_data(one, data(recipe)) or "")
    assert "source glue" in (spec.check_data(recipe, Data(name="x", arrays={})) or "")
    large = data(recipe, vocabulary=500)
    assert "its vocabulary has 500 pieces" in (spec.check_data(recipe, large) or "")
