"""Figures of little, and of too much: a curve needs two epochs, an axis two labels."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lockstep.records import load
from lockstep.report import build, drawing, figures, page
from lockstep.study.run import Run
from tests.report.planted import analysed
from tests.report.report_studies import TWO, VARIANTS, write

STYLES = drawing.looks({"torch-eager": {"framework": "torch"}})


def learning(losses: list[float]):
    known = {"train_loss": losses, "metric": 0.9, "wall_seconds": np.arange(len(losses)) + 5.0}
    epochs = pd.DataFrame({"variant": "torch-eager", "epoch": range(len(losses)), **known})
    return figures.learning_curves(epochs, "accuracy", STYLES)


def test_one_epoch_is_no_curve() -> None:
    assert learning([1.5]) is None
    assert "ends at loss 1.4000, accuracy 0.9000 after 6 s" in learning([1.5, 1.4]).alternative


@pytest.mark.parametrize(("low", "high"), [(1.30, 1.56), (0.9, 1.1), (1e-5, 3.0), (0.2312, 0.2319)])
def test_a_logarithmic_axis_has_at_least_two_labels(low: float, high: float) -> None:
    _, axes = drawing.new()
    axes.set(yscale="log", ylim=(low, high))
    drawing.plain(axes.yaxis)
    ticks = [round(float(tick), 9) for tick in axes.get_yticks() if low <= tick <= high]
    assert len(ticks) >= 2 and (1 in ticks or not low <= 1 <= high)


def test_a_crowded_row_of_dots_shows_evenly_spaced_ones() -> None:
    known = {"scale": "1x1", "variant": "torch-eager", "metric": np.arange(500.0)}
    picture = figures.dots("Accuracy", pd.DataFrame(known), "metric", STYLES)
    assert "median 249.5 of 500 runs" in picture.alternative
    assert picture.svg.count(b"<use ") < 40 + 20  # ticks are such, too
    assert "more than 40" in picture.note
    few = figures.dots("Accuracy", pd.DataFrame(known)[:3], "metric", STYLES)
    assert few.note == "Each dot is one run; the line is the median."


def test_a_framework_has_one_colour_and_a_variant_one_line_and_marker() -> None:
    eager, compiled, jit = drawing.looks(VARIANTS).values()
    assert eager["color"] == compiled["color"] != jit["color"]
    assert eager["linestyle"] != compiled["linestyle"] and eager["marker"] != compiled["marker"]


def test_more_verdicts_than_a_figure_holds_are_in_the_table(tmp_path: Path) -> None:
    jit = {"framework": "jax", "mode": "jit"}
    variants = {f"jax-{k}": {**jit, "steps_per_dispatch": k} for k in range(1, 10)}
    times = {name: 0.01 * (k + 1) for k, name in enumerate(variants)}
    found = analysed(tmp_path, variants=variants, seeds=2, step_seconds=times)
    picture = figures.forest(found.shown, drawing.looks(variants))
    assert picture and picture.alternative.count("over jax-1") == 8
    html = page.render(found, {"": [picture]})
    assert "Shown are the 8 comparisons with jax-1; the other 28 are in the" in html
    assert '<div id="comparisons"><details class="table" open>' in html


def test_a_study_of_one_variant_says_that_nothing_can_be_compared(tmp_path: Path) -> None:
    study = write(tmp_path, variants={"torch-eager": TWO["torch-eager"]}, seeds=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build.build(study)
    html = study.report().read_text()
    assert "Parity NOT TRACED" in html and "there is nothing to compare it with" in html


def test_the_curves_are_those_of_the_planted_losses(tmp_path: Path) -> None:
    more = lambda run, loss: loss * (1 + 1e-3 * (run.variant == "jax-jit"))  # noqa: E731
    records = load.load(write(tmp_path, seeds=2, edit_loss=more))
    found = {label: y for label, _, y in figures.curves(records, "mnist_cnn")}
    between = ["jax-jit and torch-eager", "jax-jit and torch-compile"]
    assert list(found) == [*between, figures.TWIN]
    for label in between:
        np.testing.assert_allclose(found[label], 1e-3, rtol=0.01)
    floor = found[figures.TWIN].tolist()
    assert floor == pytest.approx([1e-6] * 20)  # a tenth of the planted tolerance


def test_a_drift_is_said_as_how_much_longer_steps_take(tmp_path: Path) -> None:
    def later(run: Run, rows: list[dict[str, Any]]) -> None:
        for row in rows[10:]:
            row["seconds"] *= 1.07 + run.seed / 1000

    found = analysed(tmp_path, seeds=3, spread=0.0, edit_windows=later)
    drifts = [row["what"] for row in found.tables["threats"].rows if row["name"] == "Drift"]
    assert len(drifts) == 2
    assert all("differ by +7.1% from those in its first third" in what for what in drifts)
