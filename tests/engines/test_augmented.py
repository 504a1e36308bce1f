"""What an engine consumes is the augmented batch, and the checksum is of it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lockstep import engines, workloads
from lockstep.datasets import checksum
from lockstep.datasets.arrays import image_arrays
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.engines.contract import Engine, Job
from lockstep.errors import UserError
from lockstep.study import Study
from lockstep.training.feed import SharedFeed, check
from lockstep.training.native_feed import NativeFeed
from lockstep.workloads import augmentation, vision_flax, vision_torch, weights
from lockstep.workloads.augmentation import Kind
from lockstep.workloads.contract import Data

VARIANTS = {
    "torch-eager": {"framework": "torch", "mode": "eager"},
    "torch-compile": {"framework": "torch", "mode": "compile"},
    "jax-jit": {"framework": "jax", "mode": "jit", "convolution": "im2col"},
}
AUGMENT = {"name": "crop_flip", "padding": 3}
STEPS = 4


@pytest.fixture
def study(study_of: Callable[..., Study]) -> Study:
    return study_of(variants=VARIANTS, workloads={"mnist_cnn": {"augment": AUGMENT}})


@pytest.fixture
def job_of(study: Study, caches: Path) -> Callable[..., Job]:
    def make(variant: str, **augment: object) -> Job:
        recipe = study.workload("mnist_cnn")
        return Job(
            workload=workloads.spec("mnist_cnn"),
            recipe={**recipe, "augment": {**recipe["augment"], **augment}},
            variant={**study.variant(variant), "precision": "float64"},
            window_steps=STEPS,
            data=Data.of(read_manifest(study.dataset_manifest("digits"))),
            caches=caches,
        )

    return make


def started(study: Study, job: Job, seed: int = 0) -> tuple[Engine, SharedFeed]:
    engine = engines.start(job)
    engine.load(weights.load(study.weights("mnist_cnn", 0)))
    engine.prepare()
    return engine, SharedFeed(job, Reader(study.dataset_manifest("digits"), "train"), seed)


def expected(job: Job, window) -> list[int]:
    """Checksums of what NumPy makes of a window."""
    sums = []
    for k in range(window.steps):
        batch = {name: array[k] for name, array in window.batch.items()}
        shown = augmentation.apply(batch["image"], batch["crop"], (28, 28))
        both = {"image": shown, "label": batch["label"]}
        sums.append(checksum.checksum(both, int(window.examples[k])))
    return sums


CASES = [(v, n) for v in ("torch-eager", "jax-jit") for n in ("crop_flip", "resized_crop")]


@pytest.mark.parametrize(("variant", "name"), [*CASES, ("torch-compile", "resized_crop")])
def test_the_checksum_is_of_the_augmented_bytes(study, job_of, variant: str, name: str) -> None:
    job = job_of(variant, name=name)
    engine, feed = started(study, job)
    window = feed.window(20, STEPS)  # across an epoch's end
    losses, checksums = engine.fetch(engine.train(window))
    assert checksums.tolist() == expected(job, window)
    assert np.isfinite(losses).all()


@pytest.mark.parametrize(
    ("variant", "module"), [("torch-eager", vision_torch), ("jax-jit", vision_flax)]
)
def test_a_device_that_flips_otherwise_is_caught(
    study, job_of, monkeypatch, variant: str, module
) -> None:
    job = job_of(variant)
    _, feed = started(study, job)
    window = feed.window(0, STEPS)
    device = {"torch-eager": "augmentation_torch", "jax-jit": "augmentation_flax"}[variant]
    apply = getattr(module, device).apply

    def careless(images, crops, kind):
        return apply(images, crops if crops is None else crops * np.array([1, 1, 1, 1, 0]), kind)

    if variant == "torch-eager":
        import torch

        def careless(images, crops, kind):
            keep = torch.tensor([1, 1, 1, 1, 0], dtype=torch.int32)
            return apply(images, crops if crops is None else crops * keep, kind)

    monkeypatch.setattr(getattr(module, device), "apply", careless)
    engine, _ = started(study, job)
    _, checksums = engine.fetch(engine.train(window))
    assert all(a != b for a, b in zip(checksums.tolist(), expected(job, window)))


def test_both_frameworks_learn_the_same_from_it(study, job_of) -> None:
    losses = []
    for variant in ("torch-eager", "torch-compile", "jax-jit"):
        engine, feed = started(study, job_of(variant, name="resized_crop"))
        losses.append(engine.fetch(engine.train(feed.window(20, STEPS)))[0])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-12)
    np.testing.assert_allclose(losses[2], losses[0], rtol=1e-12)


def test_a_window_holds_each_steps_own_epoch(study, job_of) -> None:
    job = job_of("torch-eager")
    feed = SharedFeed(job, Reader(study.dataset_manifest("digits"), "train"), 0)
    window = feed.window(22, 2)
    kind = Kind.of(job.recipe["augment"], (28, 28, 1), (28, 28, 1))
    for k, step in enumerate((22, 23)):
        indices, count = feed.order.batch(step)
        drawn = augmentation.crops(kind, 1437, 0, step // 23)[indices]
        np.testing.assert_array_equal(window.batch["crop"][k, :count], drawn[:count])


def test_a_frameworks_own_loader_refuses_augmentation(study, job_of, study_of) -> None:
    with pytest.raises(UserError, match="input: native cannot give what is drawn"):
        NativeFeed(job_of("torch-eager"), study.dataset_manifest("digits"), 0)
    native = {"framework": "torch", "mode": "eager", "input": "native"}
    with pytest.raises(UserError, match=r"variants\.native\.input is native, which cannot augment"):
        study_of(variants={"native": native}, workloads={"mnist_cnn": {"augment": AUGMENT}})


def test_a_dataset_of_more_classes_than_the_model_tells_is_refused(job_of) -> None:
    job = job_of("torch-eager")
    data = dataclasses.replace(job.data, facts={"classes": list("abcdefghijklmn")})
    with pytest.raises(UserError, match="dataset letters: 14 classes, but the model tells 10"):
        check(dataclasses.replace(job, data=data), {"name": "letters"})


def test_a_dataset_smaller_than_a_batch_is_refused_where_the_last_is_dropped(job_of, study) -> None:
    job = job_of("torch-eager")
    job = dataclasses.replace(job, recipe={**job.recipe, "global_batch": 2000, "drop_last": True})
    with pytest.raises(UserError, match="drop_last leaves nothing of 1437 examples, fewer than a"):
        check(job, read_manifest(study.dataset_manifest("digits")))


def test_a_dataset_of_other_images_is_refused(job_of) -> None:
    job = job_of("torch-eager")
    data = dataclasses.replace(job.data, arrays=image_arrays((20, 20, 1), 10))
    job = dataclasses.replace(job, data=data)
    with pytest.raises(UserError, match="stored examples are 20×20×1, the model takes 28×28×1"):
        check(job, {"name": "digits"})
