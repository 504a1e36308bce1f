"""Runs beside other work: they say so, those that are hopeless end, and are trained again."""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockstep import files
from lockstep.study import Study
from lockstep.training import contention
from tests.cluster.test_kernel import burning
from tests.conftest import summary, train
from tests.training.package import edited, train_with

WATCHED = {"share_nodes": True, "cold_start": False, "watch": True}


@pytest.fixture
def busy() -> Iterator[None]:
    """A process that computes on every CPU."""
    with contextlib.ExitStack() as stack:
        for cpu in sorted(os.sched_getaffinity(0)):
            stack.enter_context(burning(cpu))
        yield


def columns(study: Study, block: str) -> list[str]:
    path = study.root / "runs" / block / "windows.csv"
    return path.read_text().splitlines()[0].split(",")


@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_a_run_beside_other_work_has_no_time_of_its_own(study_of, busy, variant: str) -> None:
    study = study_of(blocks=WATCHED, workloads={"mnist_cnn": {"epochs": 4}})
    block = f"mnist_cnn/{variant}/1x1/seed-0"
    said = train(study, block).stderr
    record = summary(study, block)
    told = record["contention"]
    assert record["status"] == "finished"
    assert told["watched"]
    assert told["foreign_cpu_share"] > contention.FOREIGN
    assert told["run_delay_seconds"] > 0
    assert told["involuntary_switches"] > 0
    assert not contention.enough(told["undisturbed_windows"], told["steady_windows"])
    assert "absent" in record["steady"] or record["steady"]["windows"] < told["steady_windows"]
    assert columns(study, block)[-3:] == [
        "run_delay_seconds",
        "involuntary_switches",
        "foreign_cpu_share",
    ]
    assert "the machine is busy: other work has" in said
    assert "python" in said or "pytest" in said, "and who has it"


def test_a_hopeless_run_ends_early_and_is_trained_again(study_of, busy, tmp_path: Path) -> None:
    # A minute is long for a test.
    package = edited(tmp_path, "HOPELESS = 60.0", "HOPELESS = 0.5", file="contention.py")
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    study = study_of(blocks=WATCHED, workloads={"mnist_cnn": {"epochs": 100}})
    before = study.block_parameters(block)
    assert train_with(package, study, block).returncode == 0, "the workflow goes on"
    record = summary(study, block)
    assert record["status"] == "failed"
    assert record["contention"]["gave_up"]
    assert record["reason"].startswith("gave up at step ")
    assert record["steps"] < record["total_steps"]
    assert study.manifest(block).is_file()
    written = json.loads(study.again(study.runs[0]).read_text())
    assert written == {"ended": record["ended"]}
    # Snakemake trains a block again whose parameters have changed, and the block does not skip it.
    after = Study(study.config).block_parameters(block)
    assert after != before
    first = (study.root / "runs" / block / "summary.json").stat().st_mtime_ns
    assert train_with(package, study, block).returncode == 0
    assert (study.root / "runs" / block / "summary.json").stat().st_mtime_ns > first


def test_nothing_is_judged_in_a_study_that_does_not_watch(study_of, busy) -> None:
    study = study_of()
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    said = train(study, block).stderr
    record = summary(study, block)
    assert not record["contention"]["watched"]
    assert record["contention"]["reason"] == "the config says so (blocks.watch)"
    assert record["steady"]["windows"] == record["contention"]["steady_windows"]
    assert "busy" not in said


def test_the_real_rate_is_beside_that_of_the_median_step(study_of) -> None:
    study = study_of(workloads={"mnist_cnn": {"epochs": 2}})
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    train(study, block)
    path = study.root / "runs" / block / "windows.csv"
    names, *lines = (line.split(",") for line in path.read_text().splitlines())
    made = [dict(zip(names, line)) for line in lines]
    assert sum(int(row["examples"]) for row in made) == 2 * 1437
    steady = [row for row in made if row["warm_up"] == "0"]
    told = files.read_json(path.with_name("summary.json"))["steady"]
    rate = sum(int(r["examples"]) for r in steady) / sum(float(r["seconds"]) for r in steady)
    assert told["examples_per_second"] == pytest.approx(rate)
    median = told["step_seconds"]["median"]
    assert told["batch_per_median_step"] == pytest.approx(64 / median)
