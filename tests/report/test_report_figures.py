"""Figures of little: a curve needs two epochs, an axis two labels."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lockstep.report import (
    analysis,
    build,
    dataframes,
    drawing,
    figures,
    figures_learning,
    learning,
    load,
    page,
    statistics,
    step_losses,
    threats_to_validity,
)
from lockstep.study.run import Run
from tests.report.report_studies import TWO, VARIANTS, write

STYLES = drawing.looks({"torch-eager": {"framework": "torch"}})


def epochs(losses: list[float]) -> pd.DataFrame:
    known = {"train_loss": losses, "metric": 0.9, "wall_seconds": np.arange(len(losses)) + 5.0}
    return pd.DataFrame({"variant": "torch-eager", "epoch": range(len(losses)), **known})


def test_one_epoch_is_no_curve() -> None:
    assert figures_learning.learning_curves("w", epochs([1.5]), "accuracy", STYLES) is None
    drawn = figures_learning.learning_curves("w", epochs([1.5, 1.4]), "accuracy", STYLES)
    assert drawn is not None
    assert "ends at loss 1.4000, accuracy 0.9000 after 6 s" in drawn.alternative


@pytest.mark.parametrize(("low", "high"), [(1.30, 1.56), (0.9, 1.1), (1e-5, 3.0), (0.2312, 0.2319)])
def test_a_losses_axis_has_at_least_two_labels(low: float, high: float) -> None:
    ticks = figures_learning.loss_ticks(low, high)
    assert len(ticks) >= 2
    assert all(low <= tick <= high for tick in ticks)


# What is said of a study in figures and threats -------------------------------------------------


def test_times_to_target_have_one_median_in_table_and_figure(tmp_path: Path) -> None:
    """Four seeds, of which one never met the target and one diverged."""

    def miss(run: Run, epochs: list[dict[str, Any]]) -> None:
        if run.seed >= 2:
            for row in epochs:
                row["test_accuracy"] = 0.5

    def edit(run: Run, summary: dict[str, Any]) -> None:
        if run.seed == 3:
            summary |= {"status": "failed", "reason": "the loss is nan at step 149"}

    study = write(tmp_path, variants=TWO, seeds=4, edit=edit, edit_epochs=miss)
    found = analysis.analyse(study)
    reached = found.runs[found.runs["target_reached"]].groupby("variant")["target_seconds"]
    for row in found.workloads[0].tables["target"].rows:
        assert (row["n"], row["reached"], row["failed"]) == (4, 2, 1)
        assert row["median"] == reached.max()[row["variant"]]  # of four, the second to arrive
    drawn = {p.name: p for p in figures.draw(found)["mnist_cnn"]}
    words = drawn["mnist_cnn-time-to-target"].alternative
    median = f"{reached.max()['torch-eager']:.4g}"
    assert f"torch-eager: median {median} s of 4 runs, 2 of them censored" in words


def test_a_run_that_diverged_never_meets_the_target_however_early_it_ended() -> None:
    group = pd.DataFrame(
        {
            "status": ["finished", "finished", "failed", "failed", "failed"],
            "target_reached": [True, True, False, False, None],
            "target_seconds": [1.0, 2.0, 0.5, 0.5, np.nan],  # the last was killed
        }
    )
    times, reached = learning.to_target(group)
    assert statistics.censored_median(times, reached) is None
    assert times.tolist() == [1.0, 2.0, 2.0, 2.0, 2.0]


def test_a_drift_is_said_as_how_much_longer_steps_take(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=3)
    records = load.load(study)
    slower = [replace(r, windows={**r.windows, "drift": 0.07 + r.seed / 1e3}) for r in records.runs]
    found = replace(records, runs=slower)
    drifts = [
        t.what
        for t in threats_to_validity.find(found, dataframes.runs(found), [])
        if t.name == "Drift"
    ]
    assert len(drifts) == 2
    assert all("take 7.1% longer than those of the first third" in what for what in drifts)


def test_break_even_is_not_said_of_what_is_not_comparable(tmp_path: Path) -> None:
    fair = write(tmp_path / "fair", seeds=2)
    assert analysis.analyse(fair).workloads[0].tables["break-even"].rows
    unproven = write(tmp_path / "unproven", seeds=2, parity=False)
    assert not analysis.analyse(unproven).workloads[0].tables["break-even"].rows


def test_more_verdicts_than_a_figure_holds_are_said_to_be_in_the_table(tmp_path: Path) -> None:
    variants = {
        f"jax-{k}": {"framework": "jax", "mode": "jit", "steps_per_dispatch": k}
        for k in range(1, 10)
    }
    times = {name: 0.01 * (k + 1) for k, name in enumerate(variants)}
    study = write(tmp_path, variants=variants, seeds=2, step_seconds=times)
    found = analysis.analyse(study)
    picture = figures.forest(found.comparisons, drawing.looks(variants))
    assert picture is not None
    assert "the first 30 of 36; the table has all" in picture.note
    text = page.render(found, {"": [picture], "mnist_cnn": []})
    assert "Shown are the 8 comparisons with jax-1; the other 28 are in the" in text
    assert '<details id="comparisons" open>' in text


def test_a_study_of_one_variant_says_that_nothing_can_be_compared(tmp_path: Path) -> None:
    study = write(tmp_path, variants={"torch-eager": TWO["torch-eager"]}, seeds=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build.build(study)
    text = study.report().read_text()
    assert "Parity NOT TRACED" in text
    assert "there is nothing to compare it with. Its step takes" in text


def test_figures_say_what_they_do_not_show(tmp_path: Path) -> None:
    five = {name: VARIANTS[name] for name in ("torch-eager", "torch-compile")}
    five |= {f"jax-{k}": {**VARIANTS["jax-jit"], "steps_per_dispatch": k} for k in (1, 2, 5)}
    times = dict.fromkeys(five, 0.01)
    study = write(tmp_path, variants=five, seeds=1, scales=("1x1", "1x2"), step_seconds=times)
    said = step_losses.limits(load.load(study))
    assert said == (
        "Scale 1x1 alone; the tables have all scales. "
        "Drawn are 4 of the 6 pairs between frameworks."
    )


def test_the_floor_for_another_library_is_the_twin_and_not_the_same_framework() -> None:
    curve = (np.arange(1.0, 4.0), np.array([1e-7, 1e-6, 1e-5]))
    pairs = [("a and b", "between", *curve), ("a and c", "within", *curve)]
    without = figures_learning.difference_curves("w", pairs)
    both = figures_learning.difference_curves("w", [*pairs, ("the twin", "twin", *curve)])
    assert without is not None and both is not None
    assert "there is no floor" in without.note
    assert "their line is no floor for another library" in both.note
    assert "twin: floor for another library" in both.svg.decode()


def test_the_twin_is_drawn_from_the_parity_verdict(tmp_path: Path) -> None:
    found = step_losses.curves(load.load(write(tmp_path, variants=TWO, seeds=2)), "mnist_cnn")
    (twin,) = [values for _, kind, _, values in found if kind == "twin"]
    assert twin.tolist() == pytest.approx([1e-6] * 20)  # a tenth of the planted tolerance
