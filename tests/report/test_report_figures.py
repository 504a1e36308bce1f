"""Figures of little: a curve needs two epochs, an axis two labels."""

import pandas as pd
import pytest

from lockstep.report import drawing, figures_learning

STYLES = drawing.looks({"torch-eager": {"framework": "torch"}})


def epochs(losses: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {"variant": "torch-eager", "epoch": range(len(losses)), "train_loss": losses}
    )


def test_one_epoch_is_no_curve() -> None:
    assert figures_learning.loss_curves("w", epochs([1.5]), STYLES) is None
    assert figures_learning.loss_curves("w", epochs([1.5, 1.4]), STYLES) is not None


@pytest.mark.parametrize(("low", "high"), [(1.30, 1.56), (0.9, 1.1), (1e-5, 3.0), (0.2312, 0.2319)])
def test_a_losses_axis_has_at_least_two_labels(low: float, high: float) -> None:
    ticks = figures_learning.loss_ticks(low, high)
    assert len(ticks) >= 2
    assert all(low <= tick <= high for tick in ticks)
