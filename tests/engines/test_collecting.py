"""What an evaluation keeps on the host, over batches and ranks."""

from dataclasses import replace

import numpy as np
import pytest

from lockstep import workloads
from lockstep.engines.collecting import Columns, as_bytes
from lockstep.workloads.contract import Workload

SCORES = np.arange(10, dtype=np.float32)


@pytest.fixture
def workload() -> Workload:
    return workloads.spec("mnist_cnn")


def parts(rank: int, ranks: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ten examples in batches of four over some ranks: a rank's scores, and which are real."""
    local = 4 // ranks
    padded = np.concatenate([SCORES, np.zeros(2, np.float32)])
    found = []
    for start in range(rank * local, 12, 4):
        real = (np.arange(start, start + local) < 10).astype(np.float32)
        found.append((padded[start : start + local], real))
    return found


def collected(workload: Workload, ranks: int) -> dict[str, np.ndarray]:
    every = [Columns(workload, ranks) for _ in range(ranks)]
    for rank, columns in enumerate(every):
        for score, real in parts(rank, ranks):
            columns.add({"score": score}, real)
    sent: list[list[np.ndarray]] = []
    for columns in every:  # what each rank would hand to the others, in turn
        own: list[np.ndarray] = []

        def remember(array: np.ndarray, own: list[np.ndarray] = own) -> np.ndarray:
            own.append(array)
            return array[None]

        columns.gathered(remember)
        sent.append(own)
    turn = iter(range(len(sent[0])))
    return every[0].gathered(lambda array: np.stack([own[k] for k in [next(turn)] for own in sent]))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_columns_are_in_the_order_of_the_examples_whatever_the_ranks(workload, ranks) -> None:
    np.testing.assert_array_equal(collected(workload, ranks)["score"], SCORES)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_integers_are_added_over_batches_and_ranks(workload, ranks: int) -> None:
    """Such as the histograms that an exact AUC of many examples is made of."""

    def tally(columns):
        return {"histogram": np.bincount(columns["score"].astype(int) % 3, minlength=3)}

    found = collected(replace(workload, tally=tally), ranks)
    assert found["histogram"].tolist() == [4, 3, 3]
    assert found["histogram"].dtype == np.int64


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(("keep", "kept"), [(12, True), (11, False), (4, False)])
def test_columns_of_few_examples_are_kept_and_of_more_tallied(workload, ranks, keep, kept) -> None:
    def tally(columns):
        return {"histogram": np.bincount(columns["score"].astype(int), minlength=10)}

    found = collected(replace(workload, tally=tally, keep=keep), ranks)
    if kept:
        np.testing.assert_array_equal(found["score"], SCORES)
    else:
        assert found["histogram"].tolist() == [1] * 10


def test_a_workload_without_columns_keeps_none(workload) -> None:
    columns = Columns(workload)
    columns.add({}, np.ones(4, np.float32))
    assert columns.gathered(lambda array: array[None]) == {}


def test_bytes_carry_any_type() -> None:
    gather = as_bytes(lambda flat: np.stack([flat, flat]))
    for array in (np.array([2**40, -1]), np.float32([[0.5, 1.5]])):
        np.testing.assert_array_equal(gather(array), np.stack([array, array]))
