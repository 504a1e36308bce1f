"""An epoch of 600 steps on real photographs, in float64: the same model to its last step."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lockstep.datasets import prepare
from lockstep.parity import compare
from tests import pictures
from tests.parity.residual import Climb, climbing, verdict

STEPS, BATCH = 600, 16


@pytest.fixture(scope="module")
def climb(tmp_path_factory: pytest.TempPathFactory, caches: Path) -> Iterator[Climb]:
    """Climbs on CIFAR-10's JPEG files: 9,600 for training, 500 for testing."""
    folder = tmp_path_factory.mktemp("epoch")
    raw = pictures.cifar10(folder / "raw", STEPS * BATCH // 10, 50)
    entry = {"source": "image_folder", "options": {"size": 32}}
    prepare.prepare("cifar10", entry, "0" * 64, raw, folder / "cifar10", workers=1)
    with climbing(folder, folder / "cifar10" / "manifest.json", caches) as it:
        yield it


@pytest.mark.slow
def test_an_epoch_agrees_to_its_last_step(climb) -> None:
    changes = {
        "model": {"size": 24},
        "augment": {"padding": 0},  # crops of 24x24 out of 32x32
        "global_batch": BATCH,
        "schedule": {"warmup_epochs": 0.1},
    }
    ours, theirs = (
        climb("resnet18_cifar10", variant, steps=STEPS, **changes)
        for variant in ("torch-eager", "jax-native")
    )
    assert verdict(ours, theirs) == ("none", None)
    rungs = compare.compare(ours, theirs, ["float64"])
    assert max(rung.value for rung in rungs) < 1e-12
    losses = ours["float64/steps/loss"]
    assert len(losses) == STEPS
    assert np.mean(losses[-50:]) < np.mean(losses[:50]) - 0.1  # it learns


@pytest.mark.slow
def test_bottlenecks_agree_on_the_same_files(climb) -> None:
    """`resnet50_imagenet` in small: a large stem, and random parts of a file's image resized."""
    ours, theirs = (
        climb("resnet50_imagenet", variant, model={"size": 24}, global_batch=BATCH)
        for variant in ("torch-eager", "jax-native")
    )
    assert verdict(ours, theirs) == ("none", None)
    rungs = compare.compare(ours, theirs, ["float64"])
    assert max(rung.value for rung in rungs) < 1e-12
