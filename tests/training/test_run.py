"""What a run consumes, records and reports, in its own processes."""

import csv
import json
import os
import termios
from pathlib import Path

import h5py
import numpy as np
import pytest

from benchmarks import memory
from lockstep.datasets import checksum
from lockstep.datasets.order import Order
from lockstep.datasets.reader import Reader
from lockstep.workloads import weights
from tests.conftest import DIGITS, stop, summary, train
from tests.training.package import edited, train_with

JAX64 = {"framework": "jax", "mode": "jit", "convolution": "im2col", "precision": "float64"}
FLOAT64 = {
    "torch-eager": {"framework": "torch", "mode": "eager", "precision": "float64"},
    "jax-jit": JAX64,
    "jax-per-node": {**JAX64, "process": "node"},
}


def steps(study, block: str) -> dict[str, np.ndarray]:
    with np.load(study.root / "runs" / block / "steps.npz") as stored:
        return dict(stored)


@pytest.mark.slow
def test_scales_and_frameworks_see_the_same_batches_and_losses(study_of) -> None:
    study = study_of(variants=FLOAT64, scales=["1x1", "1x2"])
    # Of one device per node there is one process either way.
    blocks = [block for block in study.blocks if "jax-per-node/1x1" not in block]
    for block in blocks:
        train(study, block)
    runs = {block: steps(study, block) for block in blocks}
    first = next(iter(runs.values()))
    split = Reader(study.dataset_manifest("digits"), "train")
    planned = [Order(1437, 64, 0).batch(k) for k in range(23)]
    expected = [checksum.checksum(split.take(indices), count) for indices, count in planned]
    for block, run in runs.items():
        assert run["checksum"].tolist() == expected, block
        np.testing.assert_allclose(run["loss"], first["loss"], rtol=1e-11, err_msg=block)
    accuracies = {summary(study, block)["metrics"]["test_accuracy"] for block in blocks}
    assert len(accuracies) == 1
    per_node = summary(study, "mnist_cnn/jax-per-node/1x2/seed-0")["contract"]["topology"]
    assert (per_node["devices"], per_node["world_size"], per_node["local_batch"]) == (2, 1, 64)
    assert [process["rank"] for process in per_node["processes"]] == [0]


SLICE = "start = self.job.topology.rank * local"
MASK = "(start + np.arange(local) < counts[:, None])"


def test_a_rank_that_does_not_read_its_slice_is_found(study_of, tmp_path: Path) -> None:
    """A worker whose feed gives rank 1 the slice of rank 0, or nothing but padding."""
    study = study_of(scales=["1x2"])
    block = "mnist_cnn/torch-eager/1x2/seed-0"
    train(study, block)
    sound = steps(study, block)["checksum"]
    faults = {
        "reads another's": (SLICE, "start = 0"),
        "drops its own": (MASK, f"({MASK} & (start == 0))"),
    }
    for name, change in faults.items():
        done = train_with(edited(tmp_path / name, *change), study, block)
        assert done.returncode == 0, done.stderr
        # Of the last step rank 1 has nothing but padding.
        assert (steps(study, block)["checksum"][:-1] != sound[:-1]).all(), name


def test_a_rank_that_fails_ends_the_run_and_waits_for_nobody(study_of, tmp_path: Path) -> None:
    """Rank 0 waits for a sum; JAX of rank 1 would wait five minutes for it to say goodbye."""
    study = study_of(scales=["1x2"])
    fails = f"{SLICE}; assert not (start and first), 'broken'"
    changed = edited(tmp_path, SLICE, fails)
    done = train_with(changed, study, "mnist_cnn/jax-jit/1x2/seed-0")
    assert done.returncode == 1
    assert "AssertionError: broken" in done.stderr


def test_a_record_says_everything(study_of) -> None:
    study = study_of(tracking={"tensorboard": True}, workloads={"mnist_cnn": {"epochs": 2}})
    for variant in ("torch-eager", "jax-jit"):
        block = f"mnist_cnn/{variant}/1x1/seed-0"
        train(study, block)
        folder = study.root / "runs" / block
        record = summary(study, block)
        assert record["status"] == "finished"
        assert record["steps"] == 46
        assert set(record["seconds"]) >= {"import", "staging", "compile", "training", "evaluation"}
        assert record["seconds"]["training"] > 0
        assert record["steady"]["step_seconds"]["median"] > 0
        assert record["memory"]["max_rss_bytes"] > 1e8
        assert "absent" in record["energy"]
        contract = record["contract"]
        assert contract["engine"]["threads" if variant == "torch-eager" else "x64"] is not None
        assert contract["engine"]["denormals"] == "flushed"  # by each of its threads, in both
        assert contract["host"]["cpu"]
        assert contract["determined_by"]["environment"]["numpy"]
        rows = list(csv.DictReader((folder / "windows.csv").open()))
        assert sum(int(row["steps"]) for row in rows) == 46
        assert [int(row["warm_up"]) for row in rows] == [1] + [0] * (len(rows) - 1)
        epochs = list(csv.DictReader((folder / "epochs.csv").open()))
        loss, count = steps(study, block)["loss"], steps(study, block)["count"]
        assert count.tolist() == ([64] * 22 + [29]) * 2
        for k, row in enumerate(epochs):
            part = slice(23 * k, 23 * (k + 1))
            expected = (loss[part] * count[part]).sum() / 1437
            assert float(row["train_loss"]) == pytest.approx(expected, rel=1e-12)
        assert list(folder.glob("events.out.tfevents.*"))
        assert "epoch 2" in (folder / "log.txt").read_text()
        assert json.loads(study.manifest(block).read_text())["runs"][block]["status"] == "finished"
    batches = {summary(study, block)["batches"] for block in study.blocks}
    assert len(batches) == 1


def test_a_person_at_the_terminal_of_a_workflow_sees_how_far_a_run_is(
    study_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, 100))
    monkeypatch.setenv("LOCKSTEP_TERMINAL", os.ttyname(slave))
    study = study_of()
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    done = train(study, block)
    os.set_blocking(master, False)
    shown = os.read(master, 1 << 16).decode()
    assert f"{block}: " in shown and "/23 [" in shown
    assert "epoch 1  step 23" in done.stderr  # plain lines, for the log
    assert "\r" not in done.stderr


def test_tensorboard_reads_the_event_files(study_of) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    study = study_of(tracking={"tensorboard": True})
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    train(study, block)
    events = accumulator.EventAccumulator(str(study.root / "runs" / block))
    events.Reload()
    assert {"loss/train", "loss/test", "accuracy/test"} <= set(events.Tags()["scalars"])
    assert events.Scalars("accuracy/test")[-1].value == pytest.approx(
        summary(study, block)["metrics"]["test_accuracy"], rel=1e-6
    )


def test_weights_and_biases_offline(study_of) -> None:
    pytest.importorskip("wandb")
    study = study_of(tracking={"wandb": True})
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    train(study, block)
    assert list((study.root / "runs" / block / "wandb").glob("offline-run-*/*.wandb"))


@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_a_loss_that_is_not_a_number_is_a_failed_record(study_of, variant: str) -> None:
    study = study_of(workloads={"mnist_cnn": {"optimizer": {"learning_rate": 1e30}}})
    block = f"mnist_cnn/{variant}/1x1/seed-0"
    done = train(study, block)
    record = summary(study, block)
    assert record["status"] == "failed"
    assert record["reason"].startswith("the loss is")
    assert "at step" in record["reason"]
    assert "the loss is" in done.stderr
    assert json.loads(study.manifest(block).read_text())["runs"][block]["status"] == "failed"


@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_a_run_that_diverges_at_its_last_step_is_a_failed_record(study_of, variant: str) -> None:
    """Only the evaluation after it sees what the last step has done."""
    recipe = {"max_steps": 1, "optimizer": {"learning_rate": 1e30}}
    study = study_of(workloads={"mnist_cnn": recipe})
    block = f"mnist_cnn/{variant}/1x1/seed-0"
    done = train(study, block)
    record = summary(study, block)
    assert (record["status"], record["steps"]) == ("failed", 1)
    assert record["reason"].startswith("the test loss is")
    assert record["reason"].endswith("at step 1")
    assert record["target"]["step"] is None
    assert "Traceback" not in done.stderr


def test_a_record_that_was_changed_or_removed_is_no_finished_run(study_of) -> None:
    study = study_of(workloads={"mnist_cnn": {"max_steps": 2}})
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    train(study, block)
    folder = study.root / "runs" / block
    table, steps_file = folder / "epochs.csv", folder / "steps.npz"
    sound = (folder / "final.safetensors").read_bytes()

    table.write_bytes(table.read_bytes().replace(b"0.", b"0.9"))
    done = train(study, block)
    assert "epochs.csv was changed since; the run is trained again" in done.stderr
    steps_file.unlink()
    done = train(study, block)
    assert "steps.npz is missing; the run is trained again" in done.stderr
    assert steps_file.is_file()
    assert (folder / "final.safetensors").read_bytes() == sound
    assert "has finished before" in train(study, block).stderr


@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_weights_of_another_model_are_one_line(study_of, variant: str) -> None:
    study = study_of(workloads={"mnist_cnn": {"max_steps": 2}})
    path = study.weights("mnist_cnn", 0)
    state = weights.load(path)
    state["param/dense2.bias"] = state["param/dense2.bias"][:1]  # which would broadcast
    weights.save(path, state)
    done = train(study, f"mnist_cnn/{variant}/1x1/seed-0", check=False)
    assert done.returncode == 2
    assert "param/dense2.bias of shape (1,), not (10,)" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_flipped_byte_in_a_shard_ends_with_status_2(study_of) -> None:
    study = study_of()
    shard = study.dataset_folder("digits") / "train-00000.h5"
    with h5py.File(shard) as opened:
        offset = opened["image"].id.get_offset()
    content = bytearray(shard.read_bytes())
    content[offset + 1000] ^= 1
    shard.write_bytes(content)
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    done = train(study, block, check=False)
    assert done.returncode == 2
    assert "train-00000.h5: block 0 of image" in done.stderr
    assert "Traceback" not in done.stderr
    assert not study.manifest(block).exists()
    failure = json.loads((study.root / "runs" / block / "failure.json").read_text())
    assert "refused" in failure["reason"]


def test_a_block_runs_all_variants_and_skips_what_has_finished(study_of) -> None:
    study = study_of(blocks={**DIGITS["blocks"], "paired": True})
    (block,) = study.blocks
    done = train(study, "mnist_cnn/paired/1x1/seed-0")
    assert done.stderr.count("finished") >= 2
    manifest = json.loads(study.manifest(block).read_text())
    assert len(manifest["runs"]) == 2
    assert len(list(study.states(block).glob("*.safetensors"))) == 2
    again = train(study, block)
    assert again.stderr.count("has finished before") == 2


def test_an_unknown_block_is_named(study_of) -> None:
    done = train(study_of(), "mnist_cnn/torch-eagr/1x1/seed-0", check=False)
    assert done.returncode == 2
    assert "did you mean 'mnist_cnn/torch-eager/1x1/seed-0'?" in done.stderr


@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_native_input_trains_and_resumes(study_of, variant: str) -> None:
    settings = {"torch-eager": {"framework": "torch", "mode": "eager"}}
    settings["jax-jit"] = {"framework": "jax", "mode": "jit", "convolution": "im2col"}
    native = {name: {**value, "input": "native"} for name, value in settings.items()}
    study = study_of(
        variants=native,
        workloads={"mnist_cnn": {"epochs": 12}},
        checkpoints={"steps": 5},
    )
    block = f"mnist_cnn/{variant}/1x1/seed-0"
    stop(study, block)
    train(study, block)
    resumed = steps(study, block)
    assert summary(study, block)["attempts"] == 2
    study.repeat(["train"], "again")
    study.write()
    train(study, block)
    np.testing.assert_array_equal(resumed["checksum"], steps(study, block)["checksum"])
    np.testing.assert_array_equal(resumed["loss"], steps(study, block)["loss"])
    shared = Order(1437, 64, 0).batch(0)
    split = Reader(study.dataset_manifest("digits"), "train")
    assert resumed["checksum"][0] != checksum.checksum(split.take(shared[0]), 64)


def test_memory_does_not_grow_with_epochs() -> None:
    """A leak of an epoch's images, 1.1 MB, would show in every third; an allocator's step in one.

    Within one run, after its allocators have settled.
    """
    _, during = memory.watch("jax-jit", examples=1437, epochs=60)
    levels = [
        np.median([seen for done in range(first, first + 12) for seen in during.get(done, [])])
        for first in (12, 24, 36, 48)
    ]
    assert np.isfinite(levels).all(), "not watched often enough"
    assert min(np.diff(levels)) < 8e6
