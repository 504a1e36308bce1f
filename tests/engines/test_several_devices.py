"""JAX over two devices of one process: in which type it sums, and over what it normalises."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lockstep.study import config
from tests.conftest import PATIENCE, ROOT, environment

STEP = """
import dataclasses, json, sys
import numpy as np
from lockstep import engines, workloads
from lockstep.datasets import arrays
from lockstep.engines.contract import Job, Topology, Window, at_rate
from lockstep.workloads import recipe, weights
from lockstep.workloads.contract import Data

asked = json.loads(sys.argv[1])
spec = workloads.spec(asked["workload"])
entry = recipe.override(spec.recipe, asked["changes"], where="test")
topology = Topology(local_devices=asked["devices"])
side = entry["model"].get("size", 28)
shape = (side, side, 3 if "size" in entry["model"] else 1)
data = Data(name="random", arrays=arrays.image_arrays(shape, 10))
job = Job(
    workload=spec,
    recipe=entry,
    variant=asked["variant"],
    data=data,
    window_steps=1,
    topology=topology,
)
engine = engines.start(job)
engine.load(weights.initial(spec, entry["model"], 0))
random = np.random.default_rng(0)
blank = Window.blank(job)
images = random.integers(0, 256, blank.batch["image"].shape).astype(np.uint8)
labels = random.integers(0, 10, blank.batch["label"].shape).astype(np.int32)
batch = {**blank.batch, "image": images, "label": labels}
window = dataclasses.replace(at_rate(blank, 1.0), batch=batch)
probe = engine.probe(window)
engine.fetch(engine.train(window))
np.savez(asked["output"], **probe, **engine.state())
print(json.dumps(engine.facts()))
"""
SMALL = {
    "global_batch": 16,
    "model": {"blocks": [1], "width": 4, "size": 8, "classes": 10},
    "augment": {"name": "none"},
}


def step(
    folder: Path, devices: int, precision: str, mode: str, workload: str, **changes: object
) -> tuple[dict, dict[str, np.ndarray]]:
    """The facts of an engine, and what it computes in a step, in a Python of its own."""
    study = {
        "study": "devices",
        "datasets": {"digits": {"source": "digits"}},
        "workloads": {"mnist_cnn": {"dataset": "digits"}},
        "variants": {"jax": {"framework": "jax", "mode": mode, "precision": precision}},
    }
    asked = {
        "devices": devices,
        "workload": workload,
        "changes": changes,
        "variant": config.complete(study)["variants"]["jax"],
        "output": str(folder / f"{devices}.npz"),
    }
    command = [sys.executable, "-c", STEP, json.dumps(asked)]
    done = subprocess.run(
        command, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr
    with np.load(asked["output"]) as stored:
        return json.loads(done.stdout.splitlines()[-1]), dict(stored)


def are_bfloat16(array: np.ndarray) -> bool:
    """Whether every value is one that bfloat16 has."""
    return not (np.ascontiguousarray(array).view(np.uint32) & 0xFFFF).any()


@pytest.mark.parametrize(("mode", "summed"), [("jit", "float32"), ("eager", "bfloat16")])
def test_gradients_are_summed_in_the_type_that_the_record_states(
    tmp_path: Path, mode: str, summed: str
) -> None:
    """Each device's gradient is one of bfloat16; a float32 sum of two is not."""
    facts, arrays = step(tmp_path, 2, "bfloat16", mode, "mnist_cnn", global_batch=16)
    assert facts["gradient_communication_dtype"] == summed
    for role in ("grad/", "momentum/"):
        kernels = {
            n: are_bfloat16(a) for n, a in arrays.items() if n.startswith(role) and a.ndim > 1
        }
        assert kernels
        assert set(kernels.values()) == {summed == "bfloat16"}, kernels


@pytest.mark.parametrize("scope", ["global", "device"])
def test_batch_normalisation_over_two_devices_has_its_scope(tmp_path: Path, scope: str) -> None:
    changes = {**SMALL, "model": {**SMALL["model"], "batch_norm": scope}}
    (_, one), (_, two) = (
        step(tmp_path, n, "float64", "jit", "resnet18_cifar10", **changes) for n in (1, 2)
    )
    differs = {
        name: np.abs(two[name] - one[name]).max() / np.abs(one[name]).max()
        for name in one
        if name.startswith(("output/", "buffer/", "param/"))
    }
    if scope == "global":
        assert max(differs.values()) < 1e-11
    else:
        assert min(differs["output/logits"], differs["buffer/stem_norm.mean"]) > 1e-3
