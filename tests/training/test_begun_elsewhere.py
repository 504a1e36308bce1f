"""A run that was begun from another run's checkpoint measures itself alone, and says so."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lockstep.records import record_tables
from lockstep.study import Study
from tests.conftest import checkpoints, stop, summary, train

TORCH, JAX = "mnist_cnn/torch-eager/1x1/seed-0", "mnist_cnn/jax-jit/1x1/seed-0"
EPOCH, EPOCHS = 23, 12


def checkpoint(study: Study, block: str) -> tuple[Path, dict]:
    """The newest checkpoint of an interrupted run, and what it says of its progress."""
    newest = checkpoints(study.root, block)[-1].parent
    return newest, json.loads((newest / "progress.json").read_text())


def table(study: Study, block: str, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((study.root / "runs" / block / name).open()))


def test_it_takes_over_what_was_learned_and_nothing_that_was_measured(
    study_of: Callable[..., Study],
) -> None:
    easy = {"metric": "accuracy", "value": 0.0}
    changes = {"epochs": EPOCHS, "target": easy}
    study = study_of(workloads={"mnist_cnn": changes}, window_steps=EPOCH)
    stop(study, TORCH)
    foreign, told = checkpoint(study, TORCH)
    begun = {"identity": told["identity"], "step": told["step"]}
    assert told["seconds"]["training"] > 0 and told["resumed_from"] is None

    stop(study, JAX, "--resume-from", foreign)
    log = (study.root / "runs" / JAX / "log.txt").read_text()
    assert f"resumes at step {begun['step']} of {EPOCH * EPOCHS} from another run's" in log
    _, own = checkpoint(study, JAX)
    assert own["resumed_from"] == begun
    assert own["windows"][0]["step"] == begun["step"] and own["windows"][0]["warm_up"] == 1

    train(study, JAX)  # what it was begun from is known from its own checkpoint now
    found = summary(study, JAX)
    assert (found["resumed_from"], found["attempts"]) == (begun, 2)
    assert found["steps"] == EPOCH * EPOCHS
    windows = table(study, JAX, "windows.csv")
    assert int(windows[0]["step"]) == begun["step"]
    assert sum(int(row["steps"]) for row in windows) == EPOCH * EPOCHS - begun["step"]
    trained = sum(float(row["seconds"]) for row in windows)
    assert found["seconds"]["training"] == pytest.approx(trained, rel=1e-12)

    epochs = table(study, JAX, "epochs.csv")
    assert [int(row["step"]) for row in epochs] == [EPOCH * k for k in range(1, EPOCHS + 1)]
    for row in epochs:
        assert (float(row["training_seconds"]) == 0) == (int(row["step"]) <= begun["step"])
    assert found["target"] == {**easy, "higher": True, "step": EPOCH, "training_seconds": None}

    folder = study.root / "runs" / JAX
    with np.load(folder / "steps.npz") as steps:
        stored = dict(steps)
    examples = int(stored["count"][begun["step"] :].sum())
    assert found["flops"]["total"] == 3 * found["flops"]["forward_per_example"] * examples
    tables = [record_tables.read_columns((folder / name).read_bytes(), name)
              for name in ("epochs.csv", "windows.csv")]  # fmt: skip
    assert list(record_tables.from_steps(stored, found, *tables)) == []
