"""What cannot run is found before anything is submitted, or before anything is computed."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.conftest import Cluster
from tests.conftest import wait_for

PROFILE = "profiles/slurm/profile.yaml"
TYPO = "  - report:slurm_partition=typo"


@pytest.fixture
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {
        "study": request.node.name.partition("[")[0].replace("test_", "")[:30],
        "datasets": {"digits": {"source": "digits"}},
        "workloads": {"mnist_cnn": {"dataset": "digits", "global_batch": 66}},
        "variants": {"torch-eager": {"framework": "torch", "mode": "eager"}},
    }


@pytest.mark.parametrize(
    ("scale", "change", "told"),
    [
        ("3x1", {}, "scale 3x1 cannot run on this cluster"),
        ("1x3", {}, "--gres=gpu:3"),
        ("1x1", {"gres=gpu": "gres=gpu:a100"}, "--gres=gpu:a100:1"),
        ("1x1", {"gres=gpu": "gpus"}, "gpus_as is 'gpus' in the profile"),
        ("1x1", {"runtime=60": "runtime=2h"}, "the default partition allows 60"),
        (
            "1x1",
            {"# - slurm_partition=gpu": "- slurm_partition=big"},
            "must be one of all, cpu, gpu",
        ),
        ("1x1", {"# - slurm_partition=gpu": "- slurm_partition=cpu"}, "scale 1x1 cannot run"),
        ("1x1", {"# - constraint=nvlink": "- constraint=nvlink"}, "Invalid feature"),
        ("1x1", {"mem_mb=7000": "mem=9GB"}, "--mem=9000"),
        (
            "1x1",
            {"# set-resources:": "set-resources:", "#   - report:slurm_partition=cpu": TYPO},
            "rule report: there is no partition 'typo'",
        ),
    ],
)
def test_impossible(
    cluster: Cluster, config: dict[str, Any], scale: str, change: dict[str, str], told: str
) -> None:
    profile = cluster.clone / PROFILE
    before = profile.read_text()
    changed = before
    for old, new in change.items():
        assert old in changed
        changed = changed.replace(old, new)
    jobs = cluster.jobs()
    try:
        profile.write_text(changed)
        said = cluster.snakemake(config | {"scales": [scale]}, status=2)
    finally:
        profile.write_text(before)
    (line,) = [line for line in said.splitlines() if line.startswith("lockstep: error:")]
    assert told in line
    assert "Traceback" not in said
    # SLURM forgets old ones meanwhile.
    assert cluster.jobs().keys() <= jobs.keys(), "something was submitted"


def test_a_partition_that_is_closed_to_a_person(cluster: Cluster, config: dict[str, Any]) -> None:
    def allow(groups: str) -> None:
        change = ("scontrol", "update", "PartitionName=gpu", f"AllowGroups={groups}")
        subprocess.run(cluster.box.line("head", *change, as_root=True), check=True)

    allow("root")
    try:
        said = cluster.snakemake(config | {"scales": ["1x1"]}, status=2)
    finally:
        allow("ALL")
    (line,) = [line for line in said.splitlines() if line.startswith("lockstep: error:")]
    assert "in partition gpu: it is open to the groups root alone" in line


def test_without_slurm(cluster: Cluster, config: dict[str, Any]) -> None:
    programs = cluster.clone / "programs"  # all but SLURM's
    programs.mkdir(exist_ok=True)
    for program in ("bash", "sh", "env", "which", "uname"):
        (programs / program).unlink(missing_ok=True)
        (programs / program).symlink_to(f"/usr/bin/{program}")
    python = subprocess.run(
        cluster.line("bash", "-c", 'dirname "$(command -v snakemake)"'), capture_output=True
    )
    path = f"PATH={python.stdout.decode().strip()}:{programs}"
    said = cluster.run("env", path, *cluster.command(config), status=2)
    assert "there is no sbatch on PATH" in said


def test_a_job_that_is_not_what_the_run_asks_for_stops_at_once(
    cluster: Cluster, config: dict[str, Any]
) -> None:
    config["scales"] = ["2x1", "1x2"]
    study = cluster.prepare(config) / "study.json"
    train = ("python", "-m", "lockstep", "train", "--study", str(study), "--block")
    two_nodes, two_gpus = (f"mnist_cnn/torch-eager/{scale}/seed-0" for scale in config["scales"])
    for job, block, gpus, told in (
        (("--nodes=1",), two_nodes, "0", "asks for 2 nodes, job"),
        (("--gres=gpu:1",), two_gpus, "2", "asks for 2 GPUs a node, node1 shows 1 (0)"),
        ((), two_gpus, "2", "shows 0 (none)"),
    ):
        said = cluster.run(
            *(
                "salloc",
                "--quiet",
                "--cpus-per-task=2",
                *job,
                *train,
                block,
                "--gpus-per-node",
                gpus,
            ),
            status=2,
        )
        assert told in said
        assert "Traceback" not in said


def test_a_second_workflow_on_the_same_study_is_refused(
    cluster: Cluster, config: dict[str, Any], tmp_path: Path
) -> None:
    first = cluster.start(*cluster.command(config), log=tmp_path / "first.log")
    try:
        wait_for(lambda: "submitted with SLURM jobid" in (tmp_path / "first.log").read_text())
        said = cluster.snakemake(config, status=2)
        assert "is in use by a workflow on login (process" in said
    finally:
        cluster.kill(first)
        cluster.box.slurm("scancel", "--me")
