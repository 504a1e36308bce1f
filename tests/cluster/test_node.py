"""What a node's agent sees to before it starts anything."""

import pytest

from lockstep import machine
from lockstep.cluster import node
from lockstep.cluster.start import Start
from lockstep.errors import UserError


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of a step of one node."""
    for name, value in (("NNODES", "1"), ("STEP_NUM_TASKS", "1"), ("NODEID", "0")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setattr(machine.Path, "glob", lambda folder, pattern: iter([folder / "nvidia0"]))
    return monkeypatch


def told(gpus: int) -> Start:
    return Start(command=(), nodes=1, processes=1, devices=1, threads=1, gpus=gpus, deadline=None)


def test_a_job_that_asked_for_no_gpu_uses_none_that_lies_about(step: pytest.MonkeyPatch) -> None:
    step.setenv("CUDA_VISIBLE_DEVICES", "")  # so that it is as before, afterwards
    step.delenv("CUDA_VISIBLE_DEVICES")
    assert machine.visible_gpus() == ["0"]
    assert node.guard(told(gpus=0)) == 0
    assert machine.visible_gpus() == []


def test_gpus_that_the_job_was_given_stay(step: pytest.MonkeyPatch) -> None:
    step.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert node.guard(told(gpus=0)) == 0
    assert machine.visible_gpus() == ["1"]
    with pytest.raises(UserError, match=r"asks for 2 GPUs a node, .* shows 1 \(1\)"):
        node.guard(told(gpus=2))
