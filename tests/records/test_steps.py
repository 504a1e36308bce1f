"""The tables and arrays of a run: what is read of them, and what follows from the steps."""

import io

import numpy as np
import pytest

from lockstep.datasets import checksum
from lockstep.records import record_tables
from lockstep.records.record_tables import Unsound

LOSS, CHECKSUM = np.array([4.0, 2.0]), np.array([1, 2], np.uint32)
COUNT, WEIGHT = np.array([8, 8], np.int32), np.array([10, 30])
SUMMARY = {"steps": 2, "batches": checksum.chain(CHECKSUM)}


def stored(**more: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez(content, loss=LOSS, checksum=CHECKSUM, count=COUNT, **more)
    return content.getvalue()


@pytest.mark.parametrize(
    ("weights", "train_loss", "says"),
    [
        ({"weight": WEIGHT}, 2.5, []),  # an example of text has as many units as masked tokens
        ({"weight": WEIGHT}, 3.0, ["epochs.csv: train_loss in row 0 is 3.0, the steps give 2.5"]),
        ({}, 3.0, []),  # older records: an example is a unit
    ],
)
def test_steps_count_by_their_loss_units(weights: dict, train_loss: float, says: list) -> None:
    steps = record_tables.read_steps(stored(**weights), SUMMARY)
    windows = {name: np.array([v]) for name, v in {"step": 0, "steps": 2, "loss": 3.0}.items()}
    epochs = {"step": np.array([2]), "train_loss": np.array([train_loss])}
    assert [*record_tables.from_steps(steps, SUMMARY, epochs, windows)] == says


def test_a_weight_of_other_steps_is_refused() -> None:
    with pytest.raises(Unsound, match="holds 3 of 2 steps in 'weight'"):
        record_tables.read_steps(stored(weight=np.array([1, 2, 3])), SUMMARY)


def test_bombs_and_pickles_are_not_opened() -> None:
    bomb, pickle = io.BytesIO(), io.BytesIO()
    np.savez_compressed(bomb, loss=np.zeros(3_000_000))
    np.savez(pickle, loss=np.array([object()], dtype=object))
    for content, says in ((bomb, "x.npz would unfold to 24"), (pickle, "x.npz is not readable")):
        with pytest.raises(Unsound, match=says):
            record_tables.read_arrays(content.getvalue(), "x.npz")


@pytest.mark.parametrize(
    ("values", "says"),
    [("0.5,3", None), (",", None), ("-1,3", "run_delay_seconds"), ("0.5,inf", "involuntary")],
)
def test_optional_columns_are_checked_where_they_are(values: str, says: str | None) -> None:
    head = "step,steps,seconds,data_seconds,warm_up,run_delay_seconds,involuntary_switches"
    content = f"{head}\n0,5,1.0,0.1,1,{values}\n".encode()
    if says is None:
        assert record_tables.read_columns(content, "windows.csv")["steps"] == [5]
    else:
        with pytest.raises(Unsound, match=says):
            record_tables.read_columns(content, "windows.csv")
