"""When the one loop evaluates, and of which steps each evaluation's row is."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lockstep.engines.contract import Evaluation
from lockstep.training import loop
from lockstep.training.feed import edges

STEPS_PER_EPOCH = 23


class Engine:
    """One whose loss is the number of the step, and which remembers when it evaluated."""

    def __init__(self) -> None:
        self.step, self.evaluated = 0, []

    def stage(self, window: Any) -> Any:
        return SimpleNamespace(**vars(window), staged=True)

    def train(self, window: Any) -> np.ndarray:
        assert window.staged
        first, self.step = self.step, self.step + window.steps
        return np.arange(first, self.step, dtype=np.float64)

    def fetch(self, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return losses, np.zeros(len(losses), np.uint32)

    def evaluate(self, batches: object) -> Evaluation:
        self.evaluated.append(self.step)
        return Evaluation(sums={"loss": 1.0, "weight": 2.0}, columns={})

    def agree(self, values: list[int]) -> list[int]:
        return values


def trained(total: int, every: int) -> tuple[Engine, loop.Progress]:
    def windows(first: int, last: int, stage: Callable[[Any], Any]):
        for _, steps in edges(first, last, STEPS_PER_EPOCH, 10, every):
            counts = {"examples": np.full(10, 4), "weights": np.arange(1, 11)}
            yield stage(SimpleNamespace(steps=steps, **counts))

    watch = SimpleNamespace(told=lambda last: (), columns=lambda told: {}, skip=lambda: None)
    plan = loop.Plan(
        total_steps=total,
        attempt=0,
        evaluate_every=every,
        evaluation=list,
        finish=lambda found: {"accuracy": 0.5},
        watch=watch,
        wish=lambda progress: loop.CONTINUE,
        save=lambda progress: None,
        report=lambda row, finished: None,
    )
    engine, progress = Engine(), loop.Progress()
    feed = SimpleNamespace(steps_per_epoch=STEPS_PER_EPOCH, windows=windows)
    assert loop.train(engine, feed, plan, progress)
    return engine, progress


@pytest.mark.parametrize(
    ("total", "every", "expected"),
    [
        (60, 0, [23, 46, 60]),
        (60, 8, [8, 16, 24, 32, 40, 48, 56, 60]),
        (46, 23, [23, 46]),
        (46, 100, [46]),
        (5, 1, [1, 2, 3, 4, 5]),
    ],
)
def test_it_evaluates_when_it_is_due_and_at_the_end(total: int, every: int, expected) -> None:
    engine, progress = trained(total, every)
    assert engine.evaluated == [row["step"] for row in progress.epochs] == expected
    assert progress.step == total


def test_a_row_has_the_mean_loss_of_the_steps_since_the_last_evaluation() -> None:
    _, progress = trained(30, 12)
    losses, weights = np.concatenate(progress.losses), np.concatenate(progress.weights)
    first = 0
    for row in progress.epochs:
        part = slice(first, row["step"])
        expected = (losses[part] * weights[part]).sum() / weights[part].sum()
        assert row["train_loss"] == pytest.approx(expected, rel=1e-15)
        assert row["test_loss"] == 0.5
        first = row["step"]
