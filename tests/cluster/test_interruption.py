"""What clusters do to jobs: every run ends as if nothing had happened, to the bit."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.training import attempts
from lockstep.workloads import weights
from tests.cluster.conftest import Cluster
from tests.conftest import PATIENCE, checkpoints, wait_for

CONFIG: dict[str, Any] = {
    "study": "undisturbed",
    "datasets": {"digits": {"source": "digits"}},
    "workloads": {
        "mnist_cnn": {"dataset": "digits", "epochs": 20, "optimizer": {"learning_rate": 0.01}}
    },
    "variants": {
        "torch-eager": {"framework": "torch", "mode": "eager"},
        "jax-jit": {"framework": "jax", "mode": "jit", "convolution": "im2col"},
    },
    "scales": ["2x1"],
    "window_steps": 5,
    "checkpoints": {"steps": 5},
    "tracking": {"tensorboard": False},
}
STEPS = 20 * 23


def block(variant: str, scale: str = "2x1") -> str:
    return f"mnist_cnn/{variant}/{scale}/seed-0"


@pytest.fixture(scope="module")
def prepared(cluster: Cluster) -> Cluster:
    """A study whose runs can be started, and a second one like it."""
    for study in ("undisturbed", "disturbed"):
        cluster.prepare(CONFIG | {"study": study})
    return cluster


def training(cluster: Cluster, study: str, variant: str, scale: str = "2x1") -> list[str]:
    path = str(cluster.results(study) / "study.json")
    return ["python", "-m", "lockstep", "train", "--study", path, "--block", block(variant, scale)]


def submit(cluster: Cluster, study: str, variant: str, scale: str = "2x1", *more: str) -> str:
    """Submit the training of a block, with `more` options of sbatch; returns the job."""
    command = " ".join(training(cluster, study, variant, scale))
    nodes = scale[0]
    said = cluster.run(
        *("sbatch", "--parsable", "--requeue", f"--nodes={nodes}", *more),
        *(f"--ntasks={nodes}", "--cpus-per-task=2", "--exclusive"),
        *("--output", f"{cluster.clone}/job-%j.log", "--wrap", command),
    )
    return said.strip()


def state(cluster: Cluster, job: str) -> str:
    return cluster.jobs().get(job, "")


def ended(cluster: Cluster, job: str) -> bool:
    return state(cluster, job) in {"COMPLETED", "FAILED", "CANCELLED", "NODE_FAIL", "TIMEOUT"}


def steps_saved(cluster: Cluster, study: str, variant: str, scale: str = "2x1") -> int:
    """Return how many steps the newest checkpoint holds."""
    found = checkpoints(cluster.results(study), block(variant, scale))
    return int(found[-1].parent.name.removeprefix("step-")) if found else 0


def wait_for_progress(cluster: Cluster, study: str, variant: str, job: str) -> int:
    """Wait until a job has saved more than there was."""
    before = steps_saved(cluster, study, variant)
    wait_for(lambda: steps_saved(cluster, study, variant) > before or ended(cluster, job))
    saved = steps_saved(cluster, study, variant)
    assert before < saved < STEPS, (cluster.clone / f"job-{job}.log").read_text()
    return saved


def wait_for_end(cluster: Cluster, job: str) -> None:
    wait_for(lambda: ended(cluster, job))


def signalled(cluster: Cluster, job: str, node: str) -> None:
    cluster.box.slurm("scancel", "--signal=USR1", job)


def killed(cluster: Cluster, job: str, node: str) -> None:
    steps = cluster.box.slurm("squeue", "--steps", "--noheader", "--format=%i", "--jobs", job)
    (step,) = re.findall(rf"^{job}\.\d+", steps, re.MULTILINE)
    cluster.box.slurm("scancel", "--signal=KILL", step)


def cancelled(cluster: Cluster, job: str, node: str) -> None:
    cluster.box.slurm("scancel", job)


def assert_same(cluster: Cluster, variant: str, scale: str = "2x1") -> dict[str, Any]:
    """Assert that the disturbed run is the undisturbed one; returns its summary."""
    one, other = (
        cluster.results(study) / "runs" / block(variant, scale)
        for study in ("undisturbed", "disturbed")
    )
    with np.load(one / "steps.npz") as ours, np.load(other / "steps.npz") as theirs:
        for name in ours.files:
            np.testing.assert_array_equal(ours[name], theirs[name])
    ends = [weights.digest(weights.load(run / "final.safetensors")) for run in (one, other)]
    assert ends[0] == ends[1]
    return json.loads((other / "summary.json").read_text())


def undisturbed(cluster: Cluster, variant: str) -> None:
    """Train the run that the disturbed one is compared with, unless it is there."""
    if not (cluster.results("undisturbed") / "runs" / block(variant) / "summary.json").is_file():
        cluster.run(
            *("salloc", "--quiet", "--nodes=2", "--ntasks=2", "--cpus-per-task=2", "--exclusive"),
            *training(cluster, "undisturbed", variant),
        )


@pytest.mark.parametrize(
    ("variant", "faults"),  # each of both, at every phase of a run: make drill
    [("torch-eager", (signalled, killed)), ("jax-jit", (killed, cancelled))],
    ids=["torch-eager", "jax-jit"],
)
def test_kills_on_two_nodes(prepared: Cluster, variant: str, faults: tuple) -> None:
    undisturbed(prepared, variant)
    saved = 0
    for fault in faults:
        job = submit(prepared, "disturbed", variant)
        saved = wait_for_progress(prepared, "disturbed", variant, job)
        fault(prepared, job, "node2")
        wait_for_end(prepared, job)
        assert state(prepared, job) != "COMPLETED", "it was too late for a fault"
        assert steps_saved(prepared, "disturbed", variant) >= saved
    job = submit(prepared, "disturbed", variant)
    wait_for_end(prepared, job)
    assert state(prepared, job) == "COMPLETED", (prepared.clone / f"job-{job}.log").read_text()
    assert assert_same(prepared, variant)["attempts"] == 3


def test_a_node_fails_and_slurm_starts_the_job_again(prepared: Cluster) -> None:
    cluster, variant = prepared, "torch-eager"
    undisturbed(cluster, variant)
    # Not finished, if a test before this one has trained it.
    run = cluster.results("disturbed") / "runs" / block(variant)
    (run / "summary.json").unlink(missing_ok=True)
    job = submit(cluster, "disturbed", variant, "2x1", "--partition=all")
    wait_for_progress(cluster, "disturbed", variant, job)
    cluster.box.stop("node2")
    wait_for(lambda: state(cluster, job) == "PENDING")
    cluster.box.wait_for_nodes("node1", "node3")  # what is left of the job there has gone
    # SLURM holds a requeued job back for two minutes; nobody needs to wait for that here.
    cluster.box.slurm("scontrol", "update", f"JobId={job}", "StartTime=now")
    wait_for_end(cluster, job)
    cluster.box.start_node("node2")
    cluster.box.wait_for_nodes()
    assert state(cluster, job) == "COMPLETED", (cluster.clone / f"job-{job}.log").read_text()
    record = assert_same(cluster, variant)
    assert record["contract"]["host"]["job"]["restarts"] == 1
    assert [node["node"] for node in record["contract"]["host"]["nodes"]] == ["node1", "node3"]
    assert record["attempts"] == 2
    made = record["contract"]["host"]["job"]["attempts"]
    assert [attempt["job"] for attempt in made] == [job, job]
    assert made[0]["reason"] == attempts.AGAIN


def test_a_killed_workflow_adopts_its_jobs_and_a_cancelled_job_is_tried_again(
    prepared: Cluster, tmp_path: Path
) -> None:
    cluster, variant = prepared, "jax-jit"
    config = CONFIG | {"study": "adopted", "variants": {variant: CONFIG["variants"][variant]}}
    config["workloads"] = {"mnist_cnn": CONFIG["workloads"]["mnist_cnn"] | {"epochs": 60}}
    config["blocks"] = {"cold_start": True}  # over two nodes, which no other test does
    command = cluster.command(config)
    asked = ("--parsable", "--nodes=2", "--exclusive", "--wrap", "sleep 600")
    busy = cluster.run("sbatch", *asked).strip()
    wait_for(lambda: state(cluster, busy) == "RUNNING")

    # A job that waits for its nodes is adopted, and so is one that runs.
    first = cluster.start(*command, log=tmp_path / "first.log")
    told = re.compile(r"submitted with SLURM jobid (\d+) ")
    wait_for(lambda: told.search((tmp_path / "first.log").read_text()))
    (waiting,) = told.findall((tmp_path / "first.log").read_text())
    cluster.kill(first)
    second = _adopts(cluster, command, waiting, "PENDING", tmp_path / "second.log")
    cluster.box.slurm("scancel", busy)
    wait_for(lambda: steps_saved(cluster, "adopted", variant) > 0)
    cluster.kill(second)
    (job,) = [job for job, state in cluster.jobs().items() if state == "RUNNING"]
    third = _adopts(cluster, command, job, "RUNNING", tmp_path / "third.log")
    cluster.box.slurm("scancel", job)
    assert third.wait(timeout=2 * PATIENCE) == 0, (tmp_path / "third.log").read_text()
    (run,) = cluster.results("adopted").glob("runs/mnist_cnn/*/2x1/seed-0")
    record = json.loads((run / "summary.json").read_text())
    assert record["attempts"] == 2
    assert record["contract"]["host"]["job"]["id"] != job
    assert record["cold_start"]["compile_seconds"] > 0
    assert (cluster.results("adopted") / "report" / "index.html").is_file()


def _adopts(
    cluster: Cluster, command: list[str], job: str, was: str, log: Path
) -> subprocess.Popen:
    """Start a workflow again, and wait until it goes on with the job that its first left."""
    assert state(cluster, job) == was
    jobs = cluster.jobs()
    again = cluster.start(*command, log=log)
    wait_for(lambda: f"submitted with SLURM jobid {job} " in log.read_text())
    assert cluster.jobs().keys() <= jobs.keys(), "a twin was submitted"
    assert state(cluster, job) == was
    return again
