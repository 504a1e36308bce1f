"""A run of speech, whose batches have several lengths, is killed and goes on as if undisturbed."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lockstep.workloads import weights
from lockstep.workloads.wav2vec2_ctc import spec
from tests import clips
from tests.conftest import checkpoints, kill, slowly, start, summary, train, wait_for

SMALL = {**spec.WORKLOAD.small, "model": {**spec.WORKLOAD.small["model"], "lengths": 2}}


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_a_killed_run_ends_as_if_undisturbed(study_of, tmp_path: Path, variant: str) -> None:
    block = f"wav2vec2_ctc/{variant}/1x1/seed-0"
    entry = {"dataset": "digits", "epochs": 2, **SMALL}
    settings = {"workloads": {"wav2vec2_ctc": entry}, "checkpoints": {"steps": 1}}
    undisturbed, killed = (study_of(name, **settings) for name in ("undisturbed", "killed"))
    shutil.rmtree(killed.dataset_folder("digits"))
    shutil.copytree(clips.prepared(tmp_path).parent, killed.dataset_folder("digits"))
    train(undisturbed, block)
    process = start(killed, block, env=slowly(tmp_path, "/step-", 0.1))
    wait_for(lambda: len(checkpoints(killed.root, block)) > 1, process)
    kill(process)
    train(killed, block)
    assert (summary(undisturbed, block)["attempts"], summary(killed, block)["attempts"]) == (1, 2)
    ends = []
    for study in (undisturbed, killed):
        folder = study.root / "runs" / block
        with np.load(folder / "steps.npz") as steps:
            ends.append((steps["loss"].tolist(), steps["checksum"].tolist()))
        ends[-1] += (weights.digest(weights.load(folder / "final.safetensors")),)
        ends[-1] += (summary(study, block)["metrics"],)
    assert ends[0] == ends[1]
