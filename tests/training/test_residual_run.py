"""A residual network in real runs: killed over two processes, and in bfloat16."""

from pathlib import Path

import numpy as np
import pytest

from lockstep.workloads import weights
from tests.conftest import checkpoints, kill, lockstep, slowly, start, summary, train, wait_for


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_a_killed_run_over_two_processes_ends_as_if_undisturbed(
    residual_of, tmp_path: Path, variant: str
) -> None:
    block = f"resnet18_cifar10/{variant}/1x2/seed-0"
    settings = {"scales": ["1x2"], "checkpoints": {"steps": 5}}
    undisturbed, killed = (residual_of(name, **settings) for name in ("undisturbed", "killed"))
    train(undisturbed, block)
    process = start(killed, block, env=slowly(tmp_path, "/step-", 0.1))
    wait_for(lambda: checkpoints(killed.root, block), process)
    kill(process)
    train(killed, block)
    assert summary(killed, block)["attempts"] == 2
    ends = []
    for study in (undisturbed, killed):
        folder = study.root / "runs" / block
        with np.load(folder / "steps.npz") as steps:
            ends.append((steps["loss"].tolist(), steps["checksum"].tolist()))
        ends[-1] += (weights.digest(weights.load(folder / "final.safetensors")),)
    assert ends[0] == ends[1]


def test_bfloat16_trains_and_its_record_states_every_type(residual_of) -> None:
    variants = {
        "torch-eager": {"framework": "torch", "mode": "eager", "precision": "bfloat16"},
        "jax-jit": {"framework": "jax", "mode": "jit", "precision": "bfloat16"},
    }
    study = residual_of("bfloat16", variants=variants)
    first = []
    for variant in variants:
        block = f"resnet18_cifar10/{variant}/1x1/seed-0"
        train(study, block)
        record = summary(study, block)
        facts = record["contract"]["engine"]
        assert {key: value for key, value in facts.items() if key.endswith("_dtype")} == {
            "parameter_dtype": "float32",
            "compute_dtype": "bfloat16",
            "accumulation_dtype": "float32",
            "normalisation_dtype": "float32",
            "gradient_communication_dtype": "float32",
        }
        assert record["metrics"]["test_top5"] >= record["metrics"]["test_accuracy"]
        with np.load(study.root / "runs" / block / "steps.npz") as steps:
            first.append(steps["loss"][0])
    assert first[0] == pytest.approx(first[1], rel=5e-3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": {"batch_norm": "gloabl"}}, "model.batch_norm is 'gloabl'; did you mean"),
        ({"drop_last": False}, "padding would enter the statistics of batch normalisation"),
        ({"model": {"blocks": [2, 0]}}, "model.blocks is [2, 0]"),
        ({"model": {"widht": 8}}, "unknown key 'model.widht'"),
    ],
)
def test_a_mistake_in_a_config_is_one_line(tmp_path, change: dict, says: str) -> None:
    import yaml

    study = {
        "study": "mistaken",
        "datasets": {"digits": {"source": "digits"}},
        "workloads": {"resnet18_cifar10": {"dataset": "digits", **change}},
        "variants": {"torch-eager": {"framework": "torch", "mode": "eager"}},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(study))
    failed = lockstep("check", tmp_path / "config.yaml", check=False)
    assert failed.returncode == 2
    assert says in failed.stderr
    assert failed.stderr.count("\n") == 1
