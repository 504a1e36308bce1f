"""The stage on the digits: a final state, every route that is quick to make, compressed forms."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from lockstep import files
from lockstep.deploy import stage
from lockstep.study import Study
from lockstep.workloads import weights
from tests.conftest import lockstep

SMALL = {"routes": ["eager", "compiled", "export", "onnx"], "queries": 100, "batches": [8]}
SEEDS = [0, 1]


def ended(study: Study, *, status: str = "finished", zero: str | None = None) -> None:
    """Leave behind what runs leave, with weights as they were drawn."""
    for run in study.deployed_runs("mnist_cnn"):
        folder = study.run_folder(run)
        state = weights.load(study.weights("mnist_cnn", run.seed))
        if zero:
            state[f"param/{zero}"][..., 0] = 0
        weights.save(folder / "final.safetensors", state)
        summary = {"status": status, "reason": "the loss is not finite", "metrics": {}}
        files.write_json(folder / "summary.json", summary)


def routes(record: dict) -> dict[tuple[str, str], dict]:
    return {(row["framework"], row["route"]): row for row in record["routes"]}


@pytest.mark.slow
def test_every_route_gives_the_logits_of_training(study_of: Callable[..., Study]) -> None:
    """torch.compile and AOTInductor are left out: a C++ compiler takes most of a minute."""
    deploy = {**SMALL, "repeats": 1, "routes": ["eager", "onnx"], "compress": ["int4", "w8a8"]}
    study = study_of(seeds=SEEDS, deploy=deploy)
    ended(study)
    lockstep("deploy", "--study", study.path, "--workload", "mnist_cnn")
    record = json.loads(study.deployment("mnist_cnn").read_text())
    assert record["reference"]["examples"] == 360
    found = routes(record)
    assert len(found) == 4
    for (framework, route), row in found.items():
        assert row["reason"] is None, row
        assert row["equality"]["largest"] <= 1e-5 * row["equality"]["scale"]
        (told,) = row["repetitions"]
        assert told["single_stream"]["queries"] >= 100
        assert told["offline"][0]["samples_per_second"] > 0
        if route == "onnx":
            folder = study.deployment("mnist_cnn").parent / "artefacts" / framework / route
            digest = files.sha256_file(folder / "model.onnx")
            assert row["artefact"]["files"]["model.onnx"]["sha256"] == digest
            assert row["nodes"] == sum(row["kinds"].values())
        else:
            exact = row["exact"]["equality"]
            assert exact["largest"] <= 1e-11 * exact["scale"]
    forms = {row["form"]: row for row in record["compressed"]}
    assert forms["w8a8"]["sums"]["equal"] == forms["w8a8"]["sums"]["compared"] > 1_000_000
    assert forms["int4"]["bytes"] < forms["float32"]["bytes"] / 7
    assert len(forms["int4"]["frameworks"]["jax"]["metrics"]) == len(SEEDS)
    assert not (study.deployment("mnist_cnn").parent / "work").exists()


@pytest.mark.slow
def test_a_program_for_any_batch_size_is_exported_and_a_zero_channel_is_a_row(
    study_of: Callable[..., Study],
) -> None:
    deploy = {**SMALL, "repeats": 1, "routes": ["compiled", "export"], "compress": ["int8", "half"]}
    variants = {"jax-jit": {"framework": "jax", "mode": "jit"}}
    study = study_of(variants=variants, deploy=deploy)
    ended(study, zero="conv2.kernel")
    lockstep("deploy", "--study", study.path, "--workload", "mnist_cnn")
    record = json.loads(study.deployment("mnist_cnn").read_text())
    assert [row["reason"] for row in record["routes"]] == [None, None]
    forms = {row["form"]: row["reason"] for row in record["compressed"]}
    assert forms["half"] is None
    assert "channel 0 of conv2.kernel is zero throughout" in forms["int8"]


def test_a_run_that_failed_is_a_row_of_every_route(study_of: Callable[..., Study]) -> None:
    study = study_of(deploy=SMALL)
    ended(study, status="failed")
    stage.deploy(study, "mnist_cnn")
    record = json.loads(study.deployment("mnist_cnn").read_text())
    assert len(record["routes"]) == 8
    for row in record["routes"]:
        assert row["reason"].endswith("seed-0 failed: the loss is not finite")
    assert record["compressed"] is None
    assert "seed-0 failed" in record["compression"]["left_out"][0]


def test_another_models_state_is_a_row_too(study_of: Callable[..., Study]) -> None:
    study = study_of(variants={"torch": {"framework": "torch", "mode": "eager"}},
                     deploy={**SMALL, "routes": ["eager"], "compress": []})  # fmt: skip
    ended(study)
    (run,) = study.deployed_runs("mnist_cnn")
    weights.save(study.run_folder(run) / "final.safetensors", {"param/x": np.zeros(3)})
    stage.deploy(study, "mnist_cnn")
    (row,) = json.loads(study.deployment("mnist_cnn").read_text())["routes"]
    assert row["reason"].startswith("the weights are not those of mnist_cnn")


def test_runs_have_to_have_ended(study_of: Callable[..., Study]) -> None:
    study = study_of(deploy=SMALL)
    said = lockstep("deploy", "--study", study.path, "--workload", "mnist_cnn", check=False)
    assert said.returncode == 2
    assert "has not ended; run the stages before this one first" in said.stderr
    alone = study_of("alone")
    said = lockstep("deploy", "--study", alone.path, "--workload", "mnist_cnn", check=False)
    assert "deploys nothing; add deploy: {} to its config" in said.stderr
