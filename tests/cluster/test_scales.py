"""`snakemake --profile slurm`, from one process to four on two nodes, in both frameworks."""

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.cluster.conftest import Cluster

SCALES = {"1x1": 1, "1x2": 2, "2x2": 4}  # of 2x1 are the runs of test_interruption.py
VARIANTS = ("torch-eager", "jax-jit", "jax-per-node")
TOLERANCE = 1e-11  # relative, of float64


@pytest.fixture(scope="module", params=["without images", "in images"])
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    study = yaml.safe_load((Path(__file__).parent / "study.yaml").read_text())
    if request.param == "in images":
        if "images" not in os.environ.get("LOCKSTEP_REQUIRE", "").split(","):
            pytest.skip("builds both CUDA images: ten minutes, 24 GB; LOCKSTEP_REQUIRE=images")
        study |= {"study": "scales-in-images", "images": {"enabled": True}}
    return study


@pytest.fixture(scope="module")
def study(cluster: Cluster, config: dict[str, Any]) -> Path:
    """The study's results, by the literal command: the config is the one in the clone."""
    default = cluster.clone / "config.yaml"
    before = default.read_text()
    default.write_text(yaml.safe_dump(config))
    try:
        cluster.run("snakemake", "--profile", "slurm")
    finally:
        default.write_text(before)
    return cluster.results(config["study"])


def runs(study: Path) -> dict[tuple[str, str], Path]:
    return {
        (variant, scale): study / "runs" / "mnist_cnn" / variant / scale / "seed-0"
        for variant in VARIANTS
        for scale in SCALES
    }


def summary(run: Path) -> dict[str, Any]:
    return json.loads((run / "summary.json").read_text())


def test_losses_and_batches_are_the_same_at_every_scale(study: Path) -> None:
    losses, batches = {}, set()
    for (variant, scale), run in runs(study).items():
        with np.load(run / "steps.npz") as steps:
            losses[variant, scale] = steps["loss"]
        batches.add(summary(run)["batches"])
    assert len(batches) == 1
    reference = losses["torch-eager", "1x1"]
    for name, values in losses.items():
        np.testing.assert_allclose(values, reference, rtol=TOLERANCE, err_msg=str(name))


def test_as_many_processes_ran_as_the_scale_says(study: Path) -> None:
    for (variant, scale), run in runs(study).items():
        contract = summary(run)["contract"]
        nodes, devices = map(int, scale.split("x"))
        processes = 1 if variant == "jax-per-node" else devices
        assert contract["topology"]["devices"] == SCALES[scale]
        assert contract["topology"]["world_size"] == nodes * processes
        assert contract["topology"]["local_batch"] == 64 // (nodes * processes)
        hosts = [node["node"] for node in contract["host"]["nodes"]]
        assert len(set(hosts)) == len(hosts) == nodes
        placed = contract["topology"]["processes"]  # each process that was started notes itself
        assert summary(run)["attempts"] == len(contract["host"]["job"]["attempts"]) == 1
        assert [place["rank"] for place in placed] == list(range(nodes * processes))
        assert [place["node"] for place in placed] == [
            host for host in hosts for _ in range(processes)
        ]
        # Their own GPUs each, no two on a node the same.
        gpus = [(place["node"], gpu) for place in placed for gpu in place["gpus"].split(",")]
        assert len(set(gpus)) == len(gpus) == SCALES[scale]


def test_each_framework_ran_in_its_own_image(study: Path, config: dict[str, Any]) -> None:
    images = set()
    for (variant, _), run in runs(study).items():
        contract = summary(run)["contract"]
        inside = contract["determined_by"]["environment"].get("image")
        assert bool(inside) == bool(config.get("images"))
        if inside:
            assert contract["host"]["image"]["identity"] == inside
            images.add((variant.partition("-")[0], inside))
    assert len(images) == (2 if config.get("images") else 0)


def test_variants_of_a_seed_share_an_allocation_of_their_own(study: Path) -> None:
    for scale in SCALES:
        jobs = [
            summary(run)["contract"]["host"]["job"]
            for (_, at), run in runs(study).items()
            if at == scale
        ]
        assert len({job["id"] for job in jobs}) == 1
        assert jobs[0]["queue_seconds"] >= 0
        # All CPUs of its nodes, although it uses two: timed runs have no neighbours.
        assert f"cpu={4 * int(scale[0])}" in jobs[0]["allocated"]


def test_a_job_says_what_slurm_counted(study: Path) -> None:
    told = sorted(study.glob("logs/train/**/*.json"))
    assert len(told) == len(SCALES)
    for path in told:
        job = json.loads(path.read_text())["host"]["job"]
        assert job["nodes"]
        assert job["energy"].keys() == {"absent"}  # no host here has a counter


def test_nothing_is_left_to_do_and_nothing_lies_about(
    study: Path, cluster: Cluster, config: dict[str, Any]
) -> None:
    said = cluster.snakemake(config, "--dry-run")
    assert not re.findall(r"^(?:local)?rule (\w+):", said, re.MULTILINE)
    assert not (study / "rendezvous").exists()
    assert (study / "report" / "index.html").is_file()
