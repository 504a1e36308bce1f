"""Pretraining on plain text, then fine-tuning from its final state: workflow, report, archive."""

import copy
import json

import numpy as np
import pytest
import yaml

from lockstep.workloads import weights
from tests import texts
from tests.conftest import ROOT
from tests.end_to_end.checkout import SMALL, Checkout, losses

BERT = {"size": "2x32", "head": 16, "vocabulary": 128, "length": 32, "positions": 40}
STUDY = {
    **SMALL,
    "study": "words",
    "datasets": {"corpus": {"source": "text", "raw": "raw", "options": texts.TEXT}},
    "workloads": {
        "bert_mlm": {
            "dataset": "corpus",
            "global_batch": 16,
            "epochs": 6,
            "evaluation_batch": 40,
            "optimizer": {"learning_rate": 0.003},
            "schedule": {"warmup_steps": 10},
            "model": {**BERT, "predictions": 5},
        }
    },
    "variants": {
        "torch-eager": {"framework": "torch", "mode": "eager"},
        "jax-jit": {"framework": "jax", "mode": "jit"},
    },
}


def tuned(state: str) -> dict:
    """The study that goes on from a final state."""
    study = copy.deepcopy(STUDY)
    study["study"] = "tuned"
    study["datasets"] = {"lengths": {"source": "glue", "raw": "raw", "options": texts.SENTENCE}}
    study["workloads"] = {
        "bert_classify": {
            "dataset": "lengths",
            "start": state,
            "global_batch": 16,
            "epochs": 2,
            "evaluation_batch": 40,
            "optimizer": {"learning_rate": 0.003},
            "model": BERT,
        }
    }
    return study


@pytest.mark.slow
def test_what_was_pretrained_is_fine_tuned(clone: Checkout) -> None:
    texts.write(clone.root / "raw")
    # That JAX pretrains the same is shown over 300 steps by tests/parity/test_bert.py.
    variants = {"torch-eager": STUDY["variants"]["torch-eager"]}
    clone.snakemake("archive", study=STUDY | {"variants": variants})
    block = "bert_mlm/torch-eager/1x1/seed-0"
    results = clone.results("words")
    curve = losses(results, block)
    assert np.mean(curve[-20:]) < np.mean(curve[:20]) - 0.3, "it has learned nothing"
    (state,) = (results / "states" / block).glob("*.safetensors")
    study = tuned(str(state.relative_to(clone.root)))
    clone.snakemake("archive", study=study)
    trained = weights.load(state)["param/layers.1.outer.kernel"]
    initial = clone.results("tuned") / "weights" / "bert_classify" / "seed-0.safetensors"
    np.testing.assert_array_equal(weights.load(initial)["param/layers.1.outer.kernel"], trained)
    for name in ("words", "tuned"):
        report = json.loads((clone.results(name) / "report" / "report.json").read_text())
        assert not report["partial"]
        assert (clone.root / "results" / f"{name}.crate.zip").is_file()


def test_the_demo_is_a_study_whose_halves_fit() -> None:
    first, second = (
        yaml.safe_load((ROOT / "demo" / f"{name}.yaml").read_text())
        for name in ("language", "language-era")
    )
    text, glue = first["datasets"]["sotu"], second["datasets"]["era"]
    assert glue["raw"] == text["raw"]
    assert glue["options"]["vocabulary"] == text["options"]
    pretrained, tuned = first["workloads"]["bert_mlm"], second["workloads"]["bert_classify"]
    for key in ("size", "vocabulary", "length"):
        assert pretrained["model"][key] == tuned["model"][key]
    assert tuned["start"].startswith(f"results/{first['study']}/states/bert_mlm/")
