"""`python -m lockstep doctor` on a login node."""

import os

import pytest
import yaml

from tests.cluster.box import USER
from tests.cluster.conftest import Cluster


@pytest.fixture
def doctor(cluster: Cluster):
    """Run it for scales; returns its lines about SLURM by subject."""

    def run(*scales: str, within: tuple[str, ...] = ()) -> dict[str, str]:
        config = {
            "study": "examined",
            "datasets": {"digits": {"source": "digits"}},
            "workloads": {"mnist_cnn": {"dataset": "digits", "global_batch": 12}},
            "variants": {"torch-eager": {"framework": "torch", "mode": "eager"}},
            "scales": list(scales),
        }
        path = cluster.clone / "examined.yaml"
        path.write_text(yaml.safe_dump(config))
        os.chown(path, USER, USER)
        said = cluster.run(*within, "python", "-m", "lockstep", "doctor", path.name, status=None)
        assert "Traceback" not in said
        lines = [line for line in said.splitlines() if ": " in line]
        return {line[6:].partition(": ")[0]: line for line in lines}

    return run


def test_a_cluster_that_is_as_it_should_be(doctor) -> None:
    said = doctor("1x1", "2x2")
    for subject in ("SLURM", "where this runs", "state of ended jobs", "request", "node node1"):
        assert said[subject].startswith("ok "), said[subject]
    assert "1x1, 2x2" in said["request"]
    assert "300 s" in said["state of ended jobs"]
    assert "none; records" in said["accounting"]


def test_scales_that_no_partition_has(doctor) -> None:
    assert doctor("1x4")["request"].startswith("FAIL")


def test_inside_a_job(doctor) -> None:
    said = doctor("1x1", within=("salloc", "--quiet"))
    assert said["where this runs"].startswith("warn")
    assert "inside job" in said["where this runs"]


def test_tools_without_a_cluster(doctor) -> None:
    # Debian's package slurm-client, on a machine that belongs to no cluster.
    hide = 'mount --types tmpfs none /etc/slurm && exec "$@"'
    within = ("unshare", "--map-root-user", "--mount", "bash", "-c", hide, "-")
    said = doctor("1x1", within=within)
    assert said["SLURM"].startswith("ok "), said["SLURM"]
    assert "belongs to no cluster" in said["SLURM"]
    assert "request" not in said


def test_a_folder_that_nodes_do_not_see(cluster: Cluster) -> None:
    # /dev/shm is each host's own.
    copy = "cp -r workflow slurm profiles /dev/shm/ && cd /dev/shm && PYTHONPATH=workflow"
    said = cluster.run("bash", "-c", f"{copy} python -m lockstep doctor", status=None)
    assert "lacks folder" in said
    assert "file system that nodes share" in said
