"""What the shared feed gathers for a window, and what it puts behind its last step."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lockstep import workloads
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.engines.contract import Job, Topology
from lockstep.errors import UserError
from lockstep.study import Study
from lockstep.training.feed import SharedFeed, edges
from lockstep.workloads.contract import Data
from tests.conftest import wait_for

ROOM = 25
SCHEDULE = {"name": "cosine", "warmup_epochs": 0.5}
AUGMENT = {"name": "crop_flip", "padding": 3}


class Watched(Reader):
    """A reader that remembers for how many examples it was asked."""

    taken = 0

    def take(self, indices: np.ndarray, **options: Any) -> dict[str, Any]:
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
        data=Data.of(read_manifest(study.dataset_manifest("digits"))),
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
    assert set(window.batch) == {"image", "label", "crop", "real"}
    parts = [(window.batch[name], whole.batch[name]) for name in window.batch]
    parts += [(window.examples, whole.examples), (window.weights, whole.weights)]
    parts += [(window.scalars["learning_rate"], whole.scalars["learning_rate"])]
    for short, full in parts:
        assert (short.shape, short.dtype) == (full.shape, full.dtype)
        np.testing.assert_array_equal(short[:steps], full[:steps])
        np.testing.assert_array_equal(short[steps:], np.stack([short[steps - 1]] * (ROOM - steps)))


@pytest.mark.parametrize("first", [0, 7, 22, 69])
def test_windows_end_with_their_epoch_and_go_on_to_the_end_of_the_run(
    feed: SharedFeed, first: int
) -> None:
    step = first
    for window in feed.windows(first, total=65):
        alone = feed.window(step, window.steps)
        for name, rows in alone.batch.items():
            np.testing.assert_array_equal(window.batch[name], rows)
        for name, numbers in alone.scalars.items():
            np.testing.assert_array_equal(window.scalars[name], numbers)
        step += window.steps
        assert step in (23, 46, 65)  # there is room for a whole epoch
    assert step == max(first, 65)


def test_the_next_window_is_gathered_while_one_is_trained_and_no_other(feed: SharedFeed) -> None:
    with contextlib.closing(feed.windows(0, total=69)) as windows:
        next(windows)
        wait_for(lambda: feed.reader.taken == 2 * 23 * 32)
        next(windows)
        wait_for(lambda: feed.reader.taken == 3 * 23 * 32)
    assert not [it for it in threading.enumerate() if it.name.startswith("read-ahead")]


def test_a_damaged_block_ends_the_run_where_it_is_needed(
    feed: SharedFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def window(first: int, steps: int) -> object:
        if first:
            raise UserError("block 3 is damaged")
        return gather(first, steps)

    gather = feed.window
    monkeypatch.setattr(feed, "window", window)
    windows = feed.windows(0, total=69)
    assert next(windows).steps == 23
    with pytest.raises(UserError, match="block 3 is damaged"):
        next(windows)


def test_windows_end_where_an_evaluation_is_due() -> None:
    found = list(edges(0, 60, steps_per_epoch=23, room=10, every=8))
    ends = [first + steps for first, steps in found]
    assert ends == [8, 16, 23, 24, 32, 40, 46, 48, 56, 60]
