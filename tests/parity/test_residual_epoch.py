"""An epoch of 600 steps on real photographs, in float64: the same model to its last step."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lockstep.parity import compare
from tests import pictures
from tests.conftest import staged
from tests.parity.residual import Climb, climbing, verdict

STEPS, BATCH = 600, 16


@pytest.fixture(scope="module")
def climb(tmp_path_factory: pytest.TempPathFactory, caches: Path) -> Iterator[Climb]:
    """Climbs on CIFAR-10's JPEG files: 9,600 for training, 500 for testing."""
    archive = staged("cifar10") / "cifar10-jpeg.tar.gz"
    folder = tmp_path_factory.mktemp("epoch")
    splits = pictures.cifar10(archive, STEPS * BATCH // 10, 50)
    with climbing(folder, pictures.write(folder / "cifar10", splits), caches) as it:
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
