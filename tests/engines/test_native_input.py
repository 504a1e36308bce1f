"""Frameworks' own loaders: what each rank gets of every step."""

from collections.abc import Callable

import numpy as np
import pytest

from lockstep import workloads
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.engines.contract import Job, Topology
from lockstep.study import Study
from lockstep.training.native_feed import NativeFeed
from lockstep.workloads.contract import Data

TORCH = {"framework": "torch", "mode": "eager", "input": "native"}
WINDOW = 5


@pytest.fixture
def study(study_of: Callable[..., Study]) -> Study:
    return study_of(variants={"torch": TORCH})


@pytest.fixture
def feed_of(study: Study) -> Callable[..., NativeFeed]:
    def make(rank: int, world_size: int, workers: int = 0) -> NativeFeed:
        job = Job(
            workload=workloads.spec("mnist_cnn"),
            recipe={**study.workload("mnist_cnn"), "epochs": 3},
            variant={**study.variant("torch"), "workers": workers},
            data=Data.of(read_manifest(study.dataset_manifest("digits"))),
            window_steps=WINDOW,
            topology=Topology(rank=rank, world_size=world_size),
        )
        return NativeFeed(job, study.dataset_manifest("digits"), seed=0)

    return make


def seen(feed: NativeFeed, first: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and masks ``(steps, local_batch)`` of consecutive windows."""
    windows = [feed.window(step, WINDOW).batch for step in range(first, first + steps, WINDOW)]
    feed.close()
    return tuple(np.concatenate([w[key] for w in windows])[:steps] for key in ("label", "real"))


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_share_every_step_although_some_have_none_of_an_epochs_last(
    feed_of: Callable[..., NativeFeed], workers: int
) -> None:
    """1,437 examples in batches of 64 over 4 ranks: the last 29 are of ranks 0 and 1 alone."""
    together = seen(feed_of(0, 1, workers), 0, 60)
    apart = [seen(feed_of(rank, 4, workers), 0, 60) for rank in range(4)]
    for k, whole in enumerate(together):
        np.testing.assert_array_equal(np.concatenate([part[k] for part in apart], axis=1), whole)
    assert together[1].sum(axis=1)[:24].tolist() == [64.0] * 22 + [29.0, 64.0]


def test_an_epoch_has_every_example_once_in_an_order_of_its_own(
    feed_of: Callable[..., NativeFeed], study: Study
) -> None:
    labels, mask = seen(feed_of(0, 1), 0, 60)
    first, second = (labels[k : k + 23][mask[k : k + 23] > 0] for k in (0, 23))
    everything = Reader(study.dataset_manifest("digits"), "train").take(np.arange(1437))["label"]
    assert sorted(first) == sorted(second) == sorted(everything)
    assert (first != second).any()


def test_it_goes_on_where_it_was(feed_of: Callable[..., NativeFeed]) -> None:
    whole, rest = seen(feed_of(1, 2), 0, 60), seen(feed_of(1, 2), 40, 20)
    for k in range(2):
        np.testing.assert_array_equal(rest[k], whole[k][40:])
