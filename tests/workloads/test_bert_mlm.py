"""BERT's pretraining is the same function in PyTorch, in JAX and in transformers."""

from typing import Any

import numpy as np
import pytest
import torch

from lockstep import workloads
from lockstep.datasets import keys, wordpiece
from lockstep.errors import UserError
from lockstep.workloads import bert, bert_torch
from lockstep.workloads.bert_mlm import spec
from lockstep.workloads.contract import Array, Data
from tests.workloads.bert_models import distance, on_jax, on_torch, settings, small, weights

NAME = "bert_mlm"
ROWS = 6
LETTERS = tuple(f"##{chr(97 + k)}" if k % 3 else chr(97 + k) for k in range(100))
VOCABULARY = (*wordpiece.SPECIALS, *LETTERS)


def data(recipe: dict[str, Any]) -> Data:
    length = recipe["model"]["length"]
    return Data(
        name="letters",
        arrays={
            "tokens": Array(name="tokens", dtype="uint16", shape=(length,)),
            "maskable": Array(name="maskable", dtype="uint16"),
        },
        facts=wordpiece.facts(VOCABULARY, True),
    )


def rows(recipe: dict[str, Any], count: int = ROWS) -> dict[str, np.ndarray]:
    length = recipe["model"]["length"]
    drawn = keys.words(count * length, "tokens").reshape(count, length)
    tokens = (5 + drawn % np.uint64(len(LETTERS))).astype(np.uint16)
    tokens[:, 0], tokens[:, -1] = 2, 3
    tokens[0, 9], tokens[1, 5:-1] = 3, 0  # several documents; hardly any token
    return {"tokens": tokens, "maskable": (tokens >= 5).sum(axis=1).astype(np.uint16)}


def batch(recipe: dict[str, Any], train: bool = True) -> dict[str, np.ndarray]:
    stored = rows(recipe)
    [draw] = spec.draws(recipe, data(recipe))
    drawn = {"key": draw.make(ROWS, 0, 0)}
    made = spec.prepare(stored, drawn, recipe, data(recipe), train)
    declared = spec.arrays(recipe, data(recipe), train)
    assert {a.name: (a.dtype, (ROWS, *a.shape)) for a in declared} == {
        name: (array.dtype.name, array.shape) for name, array in made.items()
    }
    for array in declared:
        assert array.high is None or made[array.name].max() < array.high
    return {**made, "real": np.ones(ROWS, np.float32)}


def same(one: dict, other: dict, tolerance: float) -> dict[str, float]:
    """Return how much each tensor differs, after checking that none does by more."""
    frozen = {p.name for p in spec.parameters(small(NAME)["model"]) if not p.trained}
    found = {
        f"{kind}/{name}": distance(value, other[kind][name])
        for kind, values in one.items()
        for name, value in values.items()
        if not (kind == "gradients" and name in frozen)
    }
    assert all(value <= tolerance for value in found.values()), found
    return found


@pytest.mark.parametrize("train", [True, False], ids=["dropout", "evaluation"])
def test_both_frameworks_compute_the_same_in_float64(train: bool) -> None:
    recipe = small(NAME)
    values, given = weights(NAME, recipe), batch(recipe)
    one = on_torch(NAME, recipe, values, given, train=train)
    other = on_jax(NAME, recipe, values, given, train=train)
    found = same(one, other, 1e-12)
    assert len(found) == 1 + 1 + 1 + len(values) - 2
    scale = np.linalg.norm(one["gradients"]["layers.0.query.bias"])
    for result in (one, other):
        for layer in range(2):  # rounding alone: why key biases are frozen
            noise = result["gradients"][f"layers.{layer}.key.bias"]
            assert np.linalg.norm(noise) < 1e-12 * scale


def test_both_frameworks_compute_the_same_in_float32() -> None:
    recipe = small(NAME)
    values, given = weights(NAME, recipe), batch(recipe)
    one, other = (f(NAME, recipe, values, given, "float32") for f in (on_torch, on_jax))
    same(one, other, 2e-5)


@pytest.mark.parametrize("attention", ["written", "fused"])
def test_bfloat16_differs_by_its_rounding_alone(attention: str) -> None:
    recipe = small(NAME, attention_dropout=0.0)
    values, given = weights(NAME, recipe), batch(recipe)
    exact = on_torch(NAME, recipe, values, given)
    for function in (on_torch, on_jax):
        narrow = function(NAME, recipe, values, given, "bfloat16", attention=attention)
        assert narrow["outputs"]["logits"].dtype == np.float32
        same(exact, narrow, 0.06)


def test_fused_attention_is_the_same_in_float32() -> None:
    recipe = small(NAME, attention_dropout=0.0)
    values, given = weights(NAME, recipe), batch(recipe)
    exact = on_torch(NAME, recipe, values, given)
    for function in (on_torch, on_jax):
        same(exact, function(NAME, recipe, values, given, "float32", attention="fused"), 2e-5)


def test_fused_attention_has_no_dropout_that_both_share() -> None:
    recipe = small(NAME)
    for function in (on_torch, on_jax):
        with pytest.raises(UserError, match=r"model.attention_dropout is 0.1; set it to 0"):
            function(NAME, recipe, {}, {}, "float32", attention="fused")
    model, double = recipe["model"], settings("float64", attention="fused")
    assert not bert.fused(model, double)  # float64 is written out


def changed_epsilon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bert, "EPSILON", 1e-6)


def approximate_gelu(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = torch.nn.functional.gelu
    monkeypatch.setattr(torch.nn.functional, "gelu", lambda x: exact(x, approximate="tanh"))


def dropout_without_a_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bert, "site", lambda layer, place: 8)


def one_mask_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    from lockstep.workloads import randomness_torch

    own = randomness_torch.dropout
    monkeypatch.setattr(
        randomness_torch,
        "dropout",
        lambda x, keys, site, rate: own(x, keys[:1].expand(len(keys), -1).contiguous(), site, rate),
    )


FAULTS = [changed_epsilon, approximate_gelu, dropout_without_a_site, one_mask_for_all]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_one_framework_is_seen(fault, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small(NAME)
    values, given = weights(NAME, recipe), batch(recipe)
    if fault is changed_epsilon:  # of initial weights: activations near 1 hide it
        values = {n: v / 100 if n.endswith("embedding") else v for n, v in values.items()}
    expected = on_jax(NAME, recipe, values, given)
    fault(monkeypatch)
    wrong = on_torch(NAME, recipe, values, given)
    assert distance(expected["outputs"]["logits"], wrong["outputs"]["logits"]) > 1e-9


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
    )
    theirs = transformers.BertForMaskedLM(config).double().eval()
    tensors = dict(theirs.named_parameters())
    values = weights(NAME, recipe)
    with torch.no_grad():
        for name, value in published(values).items():
            tensors.pop(name).copy_(torch.from_numpy(value))
        assert not tensors
    given = batch(recipe)
    with torch.no_grad():
        logits = theirs(torch.from_numpy(given["ids"]).long()).logits
    rows = np.arange(ROWS)[:, None]
    expected = logits.numpy()[rows, given["positions"]]
    for function in (on_torch, on_jax):
        found = function(NAME, recipe, values, given, train=False)
        assert distance(expected, found["outputs"]["logits"]) < 1e-12


def published(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our parameters under the names of transformers' model, written out by hand."""
    inner = "cls.predictions.transform"
    fixed = {
        "word.embedding": "bert.embeddings.word_embeddings.weight",
        "position.embedding": "bert.embeddings.position_embeddings.weight",
        "segment.embedding": "bert.embeddings.token_type_embeddings.weight",
        "embedding_norm.scale": "bert.embeddings.LayerNorm.weight",
        "embedding_norm.bias": "bert.embeddings.LayerNorm.bias",
        "transform.kernel": f"{inner}.dense.weight",
        "transform.bias": f"{inner}.dense.bias",
        "transform_norm.scale": f"{inner}.LayerNorm.weight",
        "transform_norm.bias": f"{inner}.LayerNorm.bias",
        "decoder.bias": "cls.predictions.bias",
    }
    modules = {
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "attended": "attention.output.dense",
        "attended_norm": "attention.output.LayerNorm",
        "inner": "intermediate.dense",
        "outer": "output.dense",
        "outer_norm": "output.LayerNorm",
    }
    result = {}
    for name, value in values.items():
        own = fixed.get(name)
        if own is None:
            _, layer, module, leaf = name.split(".")
            ending = "bias" if leaf == "bias" else "weight"
            own = f"bert.encoder.layer.{layer}.{modules[module]}.{ending}"
        result[own] = value.T if name.endswith("kernel") else value
    return result


# The description -----------------------------------------------------------------------------


def test_presets_have_the_known_sizes() -> None:
    for size, vocabulary, expected in [("base", 30522, 109_514_298), ("large", 30522, 335_174_458)]:
        model = {**spec.MODEL, "size": size, "vocabulary": vocabulary}
        count = sum(int(np.prod(p.shape)) for p in spec.parameters(model))
        assert count == expected  # of transformers' BertForMaskedLM
        assert spec.check({"model": model}, 1) is None


def test_operations_are_those_that_were_counted() -> None:
    base = {**spec.MODEL, "size": "base", "vocabulary": 30522}
    assert spec.forward_flops(base) / 1e9 == pytest.approx(23.3, abs=0.05)
    long = {**base, "length": 512, "predictions": 76}
    assert spec.forward_flops(long) / 1e9 == pytest.approx(100.3, abs=0.05)


def test_a_rows_weight_is_what_is_masked_in_every_epoch() -> None:
    recipe = small(NAME)
    stored, about = rows(recipe), data(recipe)
    [draw] = spec.draws(recipe, about)
    expected = spec.weight(stored, recipe, about)
    for epoch in (0, 1, -1):
        made = spec.prepare(stored, {"key": draw.make(ROWS, 3, epoch)}, recipe, about, True)
        np.testing.assert_array_equal(made["counts"].sum(axis=1), expected)


def test_decay_and_training_are_as_published() -> None:
    for parameter in spec.parameters(small(NAME)["model"]):
        assert parameter.decay == parameter.name.endswith(("kernel", "embedding"))
        assert parameter.trained != parameter.name.endswith("key.bias")


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"size": "2-128"}, "model.size is '2-128'"),
        ({"head": 24}, "model.head is 24, which does not divide the width 32"),
        ({"length": 64}, "model.length is 64, more than the 40 rows of the position embedding"),
        ({"predictions": 33}, "model.predictions is 33"),
        ({"percent": 0}, "model.percent is 0"),
        ({"dropout": 1.0}, "model.dropout is 1.0"),
    ],
)
def test_a_wrong_model_is_told(model: dict, told: str) -> None:
    assert told in (spec.check(small(NAME, **model), 1) or "")


def test_a_dataset_that_does_not_fit_is_told() -> None:
    recipe = small(NAME)
    assert spec.check_data(recipe, data(recipe)) is None
    other = small(NAME, vocabulary=100)
    assert "its vocabulary has 105 pieces" in (spec.check_data(other, data(other)) or "")
    longer = small(NAME, length=40)
    assert "its rows have 32 tokens" in (spec.check_data(longer, data(recipe)) or "")
    images = Data(name="x", arrays={"image": Array(name="image", dtype="uint8", shape=(8, 8, 1))})
    assert "source text" in (spec.check_data(recipe, images) or "")


def test_the_metrics_are_of_tokens() -> None:
    sums = {"weight": 200.0, "loss": 400.0, "correct": 50.0, "examples": 10.0}
    found = workloads.spec(NAME).finish(sums, {}, {})
    assert found == {"accuracy": 0.25, "perplexity": pytest.approx(np.exp(2))}


def test_the_torch_layers_are_those_of_pytorch() -> None:
    layer = bert_torch.Norm(8)
    x = torch.randn(3, 8, dtype=torch.float64)
    own = torch.nn.LayerNorm(8, eps=1e-12, dtype=torch.float64)
    torch.testing.assert_close(layer.double()(x), own(x))
