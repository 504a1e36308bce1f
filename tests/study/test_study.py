"""From a config to runs, blocks, paths and what triggers what."""

import copy
from pathlib import Path

import pytest

from lockstep import machine
from lockstep.study import Study, config
from tests.conftest import DIGITS


def study(**changes: object) -> Study:
    return Study(config.complete(copy.deepcopy(DIGITS) | changes))


def test_runs_are_the_product_and_neighbours_differ_in_the_variant() -> None:
    names = [run.name for run in study(seeds=[0, 1], scales=["1x1", "1x2"]).runs]
    assert len(set(names)) == 8
    assert names[:2] == ["mnist_cnn/torch-eager/1x1/seed-0", "mnist_cnn/jax-jit/1x1/seed-0"]


def test_a_block_holds_one_run_by_default() -> None:
    assert all(len(block.runs) == 1 for block in study(seeds=[0, 1]).blocks.values())


def test_a_paired_block_holds_all_variants_of_a_seed() -> None:
    blocks = study(seeds=[0, 1], blocks={"paired": True}).blocks
    assert list(blocks) == ["mnist_cnn/paired/1x1/seed-0", "mnist_cnn/paired/1x1/seed-1"]
    assert [run.variant for run in next(iter(blocks.values())).runs] == ["torch-eager", "jax-jit"]


def test_variants_that_compute_the_same_share_a_trace() -> None:
    variants = DIGITS["variants"] | {
        "torch-bfloat16": {"framework": "torch", "mode": "eager", "precision": "bfloat16"},
        "jax-native-input": {
            "framework": "jax",
            "mode": "jit",
            "convolution": "im2col",
            "input": "native",
        },
        "jax-native": {"framework": "jax", "mode": "jit"},
        "torch-deterministic": {"framework": "torch", "mode": "eager", "deterministic": True},
    }
    expected = ["torch-eager", "jax-jit", "torch-bfloat16", "jax-native", "torch-deterministic"]
    assert study(variants=variants).traces() == expected  # precision is part of what is timed


def test_another_learning_rate_changes_runs_but_no_dataset() -> None:
    other = copy.deepcopy(DIGITS["workloads"])
    other["mnist_cnn"]["optimizer"] = {"learning_rate": 0.02}
    before, after = study(), study(workloads=other)
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    assert before.block_parameters(block) != after.block_parameters(block)
    assert before.dataset_manifest("digits") == after.dataset_manifest("digits")


def test_one_more_seed_leaves_the_others_alone() -> None:
    before, after = study(seeds=[0]), study(seeds=[0, 1])
    for block in before.blocks:
        assert before.block_parameters(block) == after.block_parameters(block)


def test_other_packages_change_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    before = study().block_parameters(block)
    monkeypatch.setattr(machine, "versions", lambda names: dict.fromkeys(names, "0.0"))
    assert study().block_parameters(block) != before


def test_what_is_to_be_repeated_stays_so_until_it_is_done(tmp_path: Path) -> None:
    paths = {"results": str(tmp_path), "data": str(tmp_path)}
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    before = study(paths=paths).block_parameters(block)
    asked = study(paths=paths)
    asked.repeat(["train"], "now")
    assert asked.block_parameters(block) != before
    assert study(paths=paths).block_parameters(block) == before, "a plan alone notes nothing"
    asked.write()
    assert study(paths=paths).block_parameters(block) == asked.block_parameters(block)


def test_studies_do_not_mix() -> None:
    one, two = study(), study(study="other")
    assert not str(one.run_folder(one.runs[0])).startswith(str(two.root))
