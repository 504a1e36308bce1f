"""A training loss is of loss units: an example of text has as many as it has masked tokens."""

import io

import numpy as np
import pytest

from lockstep.datasets import checksum
from lockstep.records import record_tables
from lockstep.records.record_validation import Unsound

LOSS, CHECKSUM = np.array([4.0, 2.0]), np.array([1, 2], np.uint32)
COUNT, WEIGHT = np.array([8, 8], np.int32), np.array([10, 30])
SUMMARY = {"steps": 2, "batches": checksum.chain(CHECKSUM)}


def stored(**more: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.savez(content, loss=LOSS, checksum=CHECKSUM, count=COUNT, **more)
    return content.getvalue()


def said(content: bytes, loss: float) -> list[str]:
    steps = record_tables.read_steps(content, SUMMARY)
    windows = {name: np.array([v]) for name, v in {"step": 0, "steps": 2, "loss": 3.0}.items()}
    epochs = {"step": np.array([2]), "train_loss": np.array([loss])}
    return list(record_tables.from_steps(steps, SUMMARY, epochs, windows))


def test_steps_count_by_their_weight() -> None:
    assert said(stored(weight=WEIGHT), 2.5) == []
    assert said(stored(weight=WEIGHT), 3.0) == [
        "epochs.csv: train_loss in row 0 is 3.0, the steps give 2.5"
    ]


def test_in_older_records_an_example_is_a_unit() -> None:
    assert said(stored(), 3.0) == []


def test_a_weight_of_other_steps_is_refused() -> None:
    with pytest.raises(Unsound, match="holds 3 of 2 steps in 'weight'"):
        record_tables.read_steps(stored(weight=np.array([1, 2, 3])), SUMMARY)
