"""Learning rates, step by step."""

import numpy as np
import pytest

from lockstep.training.schedule import learning_rates
from lockstep.workloads.recipe import recipe


def rates(name: str, warmup: float, first: int = 0, steps: int = 100) -> np.ndarray:
    made = recipe(
        optimizer={"learning_rate": 0.5}, schedule={"name": name, "warmup_epochs": warmup}
    )
    return learning_rates(made, 10, 100, first, steps)


def test_constant_is_constant() -> None:
    assert (rates("constant", 0.0) == 0.5).all()


def test_warm_up_reaches_the_peak_at_its_end() -> None:
    np.testing.assert_allclose(
        rates("constant", 1.0)[:11], 0.5 * np.array([*range(1, 11), 10]) / 10
    )


def test_cosine_falls_from_the_peak_to_zero() -> None:
    values = rates("cosine", 1.0)
    assert values[10] == 0.5
    assert values[55] == pytest.approx(0.25)
    assert values[99] < 0.001
    assert (np.diff(values[10:]) < 0).all()


def test_a_part_is_the_same_as_in_the_whole() -> None:
    np.testing.assert_array_equal(rates("cosine", 1.0)[40:50], rates("cosine", 1.0, 40, 10))


def test_linear_falls_from_the_peak_to_zero_after_steps_of_warm_up() -> None:
    made = recipe(optimizer={"learning_rate": 0.5}, schedule={"name": "linear", "warmup_steps": 20})
    values = learning_rates(made, 10, 100, 0, 101)
    np.testing.assert_allclose(values[:21], 0.5 * np.array([*range(1, 21), 20]) / 20)
    assert values[60] == pytest.approx(0.25)
    assert values[100] == 0.0
