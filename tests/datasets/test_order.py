"""The order of examples is a pure function, and every example comes once an epoch."""

import numpy as np
import pytest

from lockstep.datasets import keys
from lockstep.datasets.order import STRETCH, Order, in_turn


def test_an_epoch_holds_every_example_once() -> None:
    order = Order(1437, 64, seed=3)
    taken = np.concatenate([order.batch(step)[0][: order.batch(step)[1]] for step in range(23)])
    assert order.steps_per_epoch == 23
    assert sorted(taken) == list(range(1437))


def test_the_last_batch_is_padded_and_counted() -> None:
    indices, count = Order(1437, 64, seed=3).batch(22)
    assert (len(indices), count) == (64, 29)
    assert not indices[29:].any()


def test_drop_last_drops_it() -> None:
    assert Order(1437, 64, 3, drop_last=True).steps_per_epoch == 22


def test_seeds_and_epochs_differ() -> None:
    first = Order(1437, 64, 3).batch(0)[0]
    assert (first != Order(1437, 64, 4).batch(0)[0]).any()
    assert (first != Order(1437, 64, 3).batch(23)[0]).any()


def test_a_step_does_not_depend_on_the_steps_before_it() -> None:
    again = Order(1437, 64, 3)
    for step in (40, 3, 25):
        np.testing.assert_array_equal(again.batch(step)[0], Order(1437, 64, 3).batch(step)[0])


def test_the_order_is_what_it_was_when_this_was_written() -> None:
    """Guards archived studies: the order may never change silently."""
    assert Order(1437, 64, 0).batch(0)[0][:6].tolist() == [1022, 1104, 898, 725, 1222, 737]
    assert keys.words(2, "a", 1).tolist() == [1276324099032739186, 12527165541128758455]


@pytest.mark.parametrize("count", [0, 1, 2, 1437, 70_000])
def test_a_permutation_is_the_order_of_its_random_words(count: int) -> None:
    order = np.argsort(keys.words(count, "sorted", count), kind="stable")
    assert keys.permutation(count, "sorted", count).tolist() == order.tolist()


def test_a_permutation_is_uniform() -> None:
    """Chi-squared over the first place of 4,000 permutations of ten."""
    first = [keys.permutation(10, "uniform", k)[0] for k in range(4000)]
    expected = 400
    statistic = ((np.bincount(first, minlength=10) - expected) ** 2 / expected).sum()
    assert statistic < 27.9  # 0.1% of nine degrees of freedom


def test_normal_numbers_have_mean_zero_and_deviation_one() -> None:
    values = keys.normal(100_001, "n")
    assert len(values) == 100_001
    assert abs(values.mean()) < 0.015
    assert abs(values.std() - 1) < 0.01


@pytest.mark.parametrize(("examples", "batch"), [(10, 3), (9, 3), (2, 5)])
def test_an_evaluation_takes_every_example_once(examples: int, batch: int) -> None:
    batches = in_turn(examples, batch)
    assert [len(indices) for indices, _ in batches] == [batch] * len(batches)
    taken = np.concatenate([indices[:count] for indices, count in batches])
    assert taken.tolist() == list(range(examples))


def test_batches_of_several_lengths_are_a_partition_in_stretches() -> None:
    buckets = np.arange(1437) * 7 % 10 // 4  # three, of which the last one is rare
    order = Order(1437, 16, seed=3, buckets=buckets)
    steps, turns = order.steps_per_epoch, []
    assert steps == sum(-(-size // 16) for size in np.bincount(buckets))
    for epoch in (0, 1):
        seen, turn = [], []
        for step in range(epoch * steps, (epoch + 1) * steps):
            bucket, first, end = order.stretch(step)
            assert first <= step < end <= first + STRETCH
            indices, count = order.batch(step)
            assert (buckets[indices] == bucket).all()
            seen += indices[:count].tolist()
            turn += [bucket] if step == first else []
        assert sorted(seen) == list(range(1437))
        turns.append(turn)
    assert turns[0] != turns[1] and sorted(turns[0]) == sorted(turns[1])
    dropped = Order(1437, 16, seed=3, drop_last=True, buckets=buckets)
    assert dropped.steps_per_epoch == sum(size // 16 for size in np.bincount(buckets))


def test_an_evaluation_takes_one_length_after_the_other() -> None:
    buckets = np.arange(50) % 3
    batches = in_turn(40, 8, buckets)
    assert [count for _, count in batches] == [8, 6, 8, 5, 8, 5]
    for indices, _ in batches:
        assert len(set(buckets[indices])) == 1
    real = [index for indices, count in batches for index in indices[:count]]
    assert sorted(real) == list(range(40))
