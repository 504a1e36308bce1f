"""A variant's cold start is measured once, from an empty cache; every timed run starts warm."""

import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from lockstep import files, machine
from lockstep.engines.contract import Preparation
from lockstep.study import Study
from lockstep.training import begin
from tests.conftest import DIGITS, kill, slowly, start, summary, train, wait_for

COMPILED = {"jax-jit": DIGITS["variants"]["jax-jit"]}
MEASURED = {"paired": True, "share_nodes": True, "watch": False, "cold_start": True}


def made(study_of, tmp_path: Path, **changes: object) -> Study:
    """A study whose compiled programs no other test shares."""
    study = study_of(blocks=MEASURED, **changes)
    study.caches(machine.instruction_set()).unlink()
    return study


def programs(study: Study, variant: str) -> Path:
    run = next(run for run in study.runs if run.variant == variant)
    return study.programs(machine.instruction_set(), run)


def test_one_start_is_cold_and_all_runs_are_warm(study_of, tmp_path: Path) -> None:
    study = made(study_of, tmp_path, seeds=[0, 1])
    for seed in (0, 1):
        said = train(study, f"mnist_cnn/paired/1x1/seed-{seed}").stderr
        assert said.count("one start from an empty cache") == (1 if seed == 0 else 0)
    first, second = (summary(study, f"mnist_cnn/jax-jit/1x1/seed-{seed}") for seed in (0, 1))
    assert first["cache"] == second["cache"] == "warm"
    assert set(first["cold_start"]) == {"trace_seconds", "compile_seconds", "first_window_seconds"}
    assert all(seconds > 0 for seconds in first["cold_start"].values())
    assert second["cold_start"] == {"absent": "measured once, for mnist_cnn/jax-jit/1x1/seed-0"}
    eager = summary(study, "mnist_cnn/torch-eager/1x1/seed-0")
    assert eager["cold_start"] == {"absent": "nothing is compiled"}


def test_what_an_engine_does_not_tell_of_its_preparation_counts_too() -> None:
    def prepare() -> Preparation:
        time.sleep(0.05)
        return Preparation(trace_seconds=0.01, compile_seconds=0.02, cache="cold")

    found = begin.prepared(SimpleNamespace(prepare=prepare))
    assert found.trace_seconds == 0.01
    assert 0.04 <= found.compile_seconds < 1.0


def test_a_trace_does_not_warm_the_start_of_a_run(study_of, tmp_path: Path) -> None:
    study = made(study_of, tmp_path)
    variants = [study.programs(machine.instruction_set(), run) for run in study.runs]
    traced = study.trace_programs(machine.instruction_set())
    assert all(traced not in (path, *path.parents) for path in variants)
    assert all(path not in traced.parents for path in variants)
    assert len(set(variants)) == len(variants), "nor does another variant"


def test_a_cold_start_that_was_killed_is_made_again_and_a_finished_one_is_not(
    study_of, tmp_path: Path
) -> None:
    study = made(study_of, tmp_path, variants=COMPILED)
    block, folder = "mnist_cnn/paired/1x1/seed-0", programs(study, "jax-jit")
    process = start(study, block, slowly(tmp_path, "cold-start.json", 600.0))
    wait_for(lambda: list((folder / "xla").glob("jit_steps*")), process)
    kill(process, signal.SIGKILL)
    assert not (folder / "cold-start.json").exists()
    left = {path.name for path in (folder / "xla").iterdir()}
    assert left
    (folder / "left.txt").write_text("of the start that was killed")
    train(study, block)
    assert not (folder / "left.txt").exists(), (
        "a cache that is not known to be empty is no cold one"
    )
    known = files.read_json(folder / "cold-start.json")
    assert known["cache"] == "cold"
    # Trained again, from the start: the measurement stays.
    files.remove(study.root / "runs")
    said = train(study, block).stderr
    assert "one start from an empty cache" not in said
    assert files.read_json(folder / "cold-start.json") == known
    record = summary(study, "mnist_cnn/jax-jit/1x1/seed-0")
    assert record["cold_start"]["compile_seconds"] == known["compile_seconds"]
    assert record["cache"] == "warm"


def test_a_first_start_is_left_out_where_the_config_says_so(study_of, tmp_path: Path) -> None:
    study = made(study_of, tmp_path)
    config = {**study.config, "blocks": {**study.config["blocks"], "cold_start": False}}
    files.write_json(study.path, config)
    said = train(study, "mnist_cnn/paired/1x1/seed-0").stderr
    assert "one start from an empty cache" not in said
    record = summary(study, "mnist_cnn/jax-jit/1x1/seed-0")
    assert record["cache"] == "cold"
    assert record["cold_start"] == {"absent": "it was not measured"}


@pytest.mark.slow
def test_several_ranks_start_cold_together(study_of, tmp_path: Path) -> None:
    study = made(study_of, tmp_path, variants=COMPILED, scales=["1x2"])
    train(study, "mnist_cnn/paired/1x2/seed-0")
    record = summary(study, "mnist_cnn/jax-jit/1x2/seed-0")
    assert record["cache"] == "warm"
    assert record["cold_start"]["compile_seconds"] > 0
