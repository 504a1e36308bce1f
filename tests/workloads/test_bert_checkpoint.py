"""Published checkpoints are adopted whatever their age; one of another model is refused by name."""

from pathlib import Path

import numpy as np
import pytest

from lockstep.errors import UserError
from lockstep.workloads import bert_checkpoint, weights
from lockstep.workloads.bert_classify import spec as classify
from lockstep.workloads.bert_mlm import spec as mlm
from tests.workloads.bert_models import small
from tests.workloads.bert_models import weights as noise

MODEL = small("bert_classify")["model"]
Tensors = dict[str, np.ndarray]


def states() -> tuple[Tensors, Tensors]:
    """Neutral parameters of the pretraining model, and the same as published."""
    recipe = small("bert_mlm")
    neutral = {n: v.astype(np.float32) for n, v in noise("bert_mlm", recipe).items()}
    neutral |= {
        n: v.astype(np.float32)
        for n, v in noise("bert_classify", small("bert_classify")).items()
        if n.startswith("pooler.")
    }
    named = {
        bert_checkpoint.published(n): v.T if n.endswith("kernel") else v for n, v in neutral.items()
    }
    return neutral, named


def older(tensors: Tensors) -> Tensors:
    """As the first published files were: other names, what is tied, a table, another head."""
    renamed = {}
    for name, value in tensors.items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        renamed[name.replace("LayerNorm.bias", "LayerNorm.beta")] = value
    return {
        **renamed,
        "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"],
        "cls.seq_relationship.weight": np.zeros((2, 32), np.float32),
        "bert.embeddings.position_ids": np.arange(40)[None],
    }


def bare(tensors: Tensors) -> Tensors:
    """As a model without heads is saved."""
    return {n.removeprefix("bert."): v for n, v in tensors.items() if n.startswith("bert.")}


@pytest.mark.parametrize("form", [dict, older, bare])
def test_a_published_checkpoint_is_adopted(form) -> None:
    neutral, named = states()
    found = classify.start("x", form(named), MODEL)
    wanted = {p.name for p in classify.parameters(MODEL)}
    assert found.keys() == wanted - {"classifier.kernel", "classifier.bias"}
    for name, value in found.items():
        np.testing.assert_array_equal(value, neutral[name])
        assert value.dtype == np.float32


def test_pretraining_goes_on_from_a_published_checkpoint() -> None:
    neutral, named = states()
    found = mlm.start("x", older(named), small("bert_mlm")["model"])
    assert found.keys() == {p.name for p in mlm.parameters(MODEL)}
    np.testing.assert_array_equal(found["transform.kernel"], neutral["transform.kernel"])


def test_a_final_state_of_ours_is_adopted_without_its_optimizer(tmp_path: Path) -> None:
    neutral, _ = states()
    state = {f"param/{n}": v for n, v in neutral.items() if not n.startswith("pooler")}
    state |= {n.replace("param", "first_moment"): v for n, v in state.items()}
    weights.save(tmp_path / "final.safetensors", state)
    found = classify.start("x", weights.load(tmp_path / "final.safetensors"), MODEL)
    assert "pooler.kernel" not in found
    np.testing.assert_array_equal(found["layers.1.outer.kernel"], neutral["layers.1.outer.kernel"])


def test_half_precision_is_brought_to_float32() -> None:
    _, named = states()
    found = classify.start("x", {n: v.astype(np.float16) for n, v in named.items()}, MODEL)
    assert found["word.embedding"].dtype == np.float32


def changed(tensors: Tensors, **values: np.ndarray | None) -> Tensors:
    result = {**tensors, **values}
    return {name: value for name, value in result.items() if value is not None}


QUERY = "bert.encoder.layer.1.attention.self.query.weight"
WORD = "bert.embeddings.word_embeddings.weight"
WRONG = {
    "missing": ({QUERY: None}, f"FILE: has no tensor {QUERY}"),
    "surplus": (
        {"bert.encoder.layer.2.output.dense.bias": np.zeros(32, np.float32)},
        "FILE: has the tensor bert.encoder.layer.2.output.dense.bias, which the model has not",
    ),
    "misshapen": (
        {WORD: np.zeros((99, 32), np.float32)},
        f"FILE: {WORD} has the shape (99, 32), but the model's is (128, 32)",
    ),
    "of another type": ({QUERY: np.zeros((32, 32), np.int32)}, "is of type int32"),
    "untied": (
        {"cls.predictions.decoder.weight": np.zeros((128, 32), np.float32)},
        "FILE: cls.predictions.decoder.weight differs from",
    ),
    "doubled": (
        {"bert.embeddings.LayerNorm.gamma": np.zeros(32, np.float32)},
        "FILE: has two tensors for bert.embeddings.LayerNorm.weight",
    ),
    "another model": (
        {"distilbert.transformer.layer.0.ffn.lin1.bias": np.zeros(4, np.float32), WORD: None},
        f"FILE: has no tensor {WORD}",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_of_another_model_is_refused_in_one_line(name: str) -> None:
    changes, expected = WRONG[name]
    _, named = states()
    with pytest.raises(UserError) as caught:
        classify.start("FILE", changed(named, **changes), MODEL)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_are_those_that_transformers_saves(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.BertConfig(
        vocab_size=128,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=40,
    )
    saved = transformers.BertForPreTraining(config)
    saved.save_pretrained(tmp_path)
    tensors = weights.load(tmp_path / "model.safetensors")
    assert classify.start("x", tensors, MODEL).keys() == mlm_and_pooler()
    assert mlm.start("x", tensors, MODEL).keys() == {p.name for p in mlm.parameters(MODEL)}


def mlm_and_pooler() -> set[str]:
    return {p.name for p in classify.parameters(MODEL) if not p.name.startswith("classifier")}
