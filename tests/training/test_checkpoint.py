"""What a checkpoint says of the time that it took itself."""

import time
from pathlib import Path

import numpy as np

from lockstep.training import checkpoint
from lockstep.training.clock import Clock


def small() -> checkpoint.Checkpoint:
    one = np.ones(3)
    return checkpoint.Checkpoint(
        step=3,
        trajectory="t",
        state={"param/a": one},
        losses=one,
        checksums=one.astype(np.uint32),
        counts=one.astype(np.int64),
        weights=one.astype(np.int64),
        progress={"attempts": 1},
    )


def test_a_clock_that_is_asked_while_it_runs_tells_what_has_passed() -> None:
    clock = Clock({"checkpoint": 10.0, "training": 5.0})
    with clock("checkpoint"):
        time.sleep(0.02)
        told = clock.so_far()
        assert told["checkpoint"] >= 10.02 and told["training"] == 5.0
        assert clock.seconds["checkpoint"] == 10.0
    assert clock.seconds["checkpoint"] >= told["checkpoint"]
    assert clock.so_far() == clock.seconds


def test_a_checkpoint_holds_its_own_duration(tmp_path: Path) -> None:
    """All but the writing of its last small files: what is asked for late is asked for then."""
    clock = Clock()
    with clock("checkpoint"):
        time.sleep(0.05)  # as long as a device takes to give its state
        path = checkpoint.save(tmp_path, small(), late=lambda: {"seconds": clock.so_far()})
    found = checkpoint.load(path)
    assert 0.05 <= found.progress["seconds"]["checkpoint"] <= clock.seconds["checkpoint"]
    assert found.progress["attempts"] == 1
