"""What the shared feed gathers for a window, and what it puts behind its last step."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lockstep import workloads
from lockstep.datasets.reader import Reader
from lockstep.engines.contract import Job, Topology
from lockstep.study import Study
from lockstep.training.feed import SharedFeed

ROOM = 25
SCHEDULE = {"name": "cosine", "warmup_epochs": 0.5}
AUGMENT = {"name": "crop_flip", "padding": 3}


class Watched(Reader):
    """A reader that remembers for how many examples it was asked."""

    taken = 0

    def take(self, indices: np.ndarray, **options: Any) -> tuple[np.ndarray, np.ndarray]:
        self.taken += indices.size
        return super().take(indices, **options)


@pytest.fixture
def feed(study_of: Callable[..., Study]) -> SharedFeed:
    """Rank 1 of 2: of an epoch's 23 steps it has no example of the last."""
    changes = {"epochs": 3, "schedule": SCHEDULE, "augment": AUGMENT}
    study = study_of(workloads={"mnist_cnn": changes})
    job = Job(
        workload=workloads.spec("mnist_cnn"),
        recipe=study.workload("mnist_cnn"),
        variant=study.variant("torch-eager"),
        window_steps=ROOM,
        stored=(28, 28, 1),
        topology=Topology(rank=1, world_size=2),
    )
    return SharedFeed(job, Watched(study.dataset_manifest("digits"), "train"), seed=0)


@pytest.mark.parametrize(("first", "steps"), [(0, 1), (7, 16), (22, 1), (23, 23), (0, ROOM)])
def test_a_window_reads_the_examples_of_its_steps_alone(
    feed: SharedFeed, first: int, steps: int
) -> None:
    feed.window(first, steps)
    assert feed.reader.taken == steps * 32


@pytest.mark.parametrize(("first", "steps"), [(0, 1), (7, 16), (22, 1), (23, 23)])
def test_rows_beyond_a_windows_steps_repeat_its_last_one(
    feed: SharedFeed, first: int, steps: int
) -> None:
    window, whole = feed.window(first, steps), feed.window(first, ROOM)
    assert set(window.batch) == {"images", "labels", "mask", "crops"}
    parts = [(window.batch[name], whole.batch[name]) for name in window.batch]
    parts += [(window.counts, whole.counts), (window.learning_rates, whole.learning_rates)]
    for short, full in parts:
        assert (short.shape, short.dtype) == (full.shape, full.dtype)
        np.testing.assert_array_equal(short[:steps], full[:steps])
        np.testing.assert_array_equal(short[steps:], np.stack([short[steps - 1]] * (ROOM - steps)))
