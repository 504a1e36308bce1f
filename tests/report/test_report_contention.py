"""What the machine gave and what was chosen: an answer carries what could turn it round."""

import json
from pathlib import Path
from typing import Any

import pytest

from lockstep.report import analysis, build, comparability, sentences, terminal_summary, verdicts
from lockstep.report.analysis import Analysis
from lockstep.study.run import Run
from tests.report.planted import comparison
from tests.report.report_studies import TWO, write


def busy(*seeds: int, variant: str = "torch-eager", windows: int = 1_000):
    """Return an edit: in runs of these seeds other programs took the cores, steps took longer."""

    def edit(run: Run, rows: list[dict[str, Any]]) -> None:
        if run.variant == variant and run.seed in seeds:
            for row in rows[1 : 1 + windows]:
                row["seconds"] *= 50
                row["foreign_cpu_share"] = 0.9

    return edit


def step_row(found: Analysis, variant: str) -> Any:
    rows = found.workloads[0].tables["step-time"].rows
    return next(row for row in rows if row["variant"] == variant)


def test_a_study_on_a_busy_machine_has_no_verdict_on_time_and_says_why(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=3, edit_windows=busy(0, 1, 2))
    build.build(study)
    (c,) = analysis.analyse(study).comparisons
    assert c.kind == verdicts.NOT_COMPARABLE and c.quality_kind != verdicts.NOT_COMPARABLE
    why = "torch-eager: other programs used its CPU cores: only 0 of its 14 timed windows"
    assert "are not comparable in time" in sentences.sentence(c) and why in sentences.sentence(c)
    assert why in study.report().read_text()
    assert any(why in line for line in terminal_summary.lines(study))
    assert "other programs" in str(step_row(analysis.analyse(study), "torch-eager")["step_median"])


def test_a_disturbed_run_among_others_is_left_out_of_time_by_name(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, edit_windows=busy(2))
    build.build(study)
    found = analysis.analyse(study)
    (c,) = found.comparisons
    assert c.kind == verdicts.FASTER and c.step_time is not None and c.step_time.n == 4
    assert 0.48 < c.step_time.value < 0.52
    assert c.whole_run is not None and c.whole_run.n == 4
    assert any(
        "left out of step time: seed 2: torch-eager" in s for s in terminal_summary.lines(study)
    )
    assert "Seed 2 is left out of step time: torch-eager" in study.report().read_text()


def test_disturbed_windows_do_not_count(tmp_path: Path) -> None:
    quiet = comparison(tmp_path / "quiet")
    c = comparison(tmp_path / "busy", edit_windows=busy(0, 1, 2, 3, 4, windows=5))
    assert c.kind == verdicts.FASTER and not c.untimed
    assert quiet.step_time is not None and c.step_time is not None
    assert c.step_time.value == pytest.approx(quiet.step_time.value, rel=0.02)
    found = analysis.analyse(write(tmp_path, variants=TWO, edit_windows=busy(0, windows=5)))
    assert step_row(found, "torch-eager")["disturbed"] == 5


@pytest.mark.parametrize(
    ("contention", "why"),
    [
        (None, "the records are older than this measurement"),
        ({"watched": False, "reason": "this kernel has no schedstat"}, "this kernel has no"),
    ],
)
def test_where_contention_was_not_watched_the_verdict_says_so(tmp_path, contention, why) -> None:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        summary["contention"] = contention

    said = sentences.sentence(comparison(tmp_path, edit))
    assert f" Contention was not watched: {why}" in said
    assert "watched" not in sentences.sentence(comparison(tmp_path / "watched"))


# What was chosen ------------------------------------------------------------------------------


def test_every_declared_setting_is_told_in_the_verdict(tmp_path: Path) -> None:
    variants = {
        "torch-eager": {**TWO["torch-eager"], "memory_format": "channels_last"},
        "jax-jit": {**TWO["jax-jit"], "convolution": "im2col", "steps_per_dispatch": 5},
    }
    study = write(tmp_path, variants=variants)
    build.build(study)
    said = (
        "jax-jit is faster, with 5 steps per dispatch and convolutions as im2col, which Lockstep "
        "brings, where torch-eager has images in channels_last memory format: it takes 0."
    )
    assert said in sentences.sentence(analysis.analyse(study).comparisons[0])
    assert said in study.report().read_text()
    assert any(said in line for line in terminal_summary.lines(study))


def test_a_setting_that_no_phrase_knows_is_told_by_its_name() -> None:
    own = {"framework": "jax", "mode": "jit", "precision": "float32", "wait_policy": "passive"}
    other = own | {"framework": "torch", "mode": "eager", "wait_policy": "active"}
    assert comparability.listed(own, other) == "wait_policy passive"
    assert comparability.listed(own, own) == ""


# Cold and warm --------------------------------------------------------------------------------


def cold_first(run: Run, summary: dict[str, Any]) -> None:
    """The first seed of what compiles found an empty cache."""
    if run.variant != "torch-eager" and run.seed == 0:
        summary["cache"] = "cold"
        summary["seconds"]["compile"] = 100.0


def test_cold_and_warm_starts_are_in_no_mean_together(tmp_path: Path) -> None:
    found = analysis.analyse(write(tmp_path, variants=TWO, seeds=3, edit=cold_first))
    tables = found.workloads[0].tables
    bars = {(r["variant"], r["start"]): r for r in tables["time-split"].rows}
    assert bars["jax-jit", "warm"]["n"] == 2 and bars["jax-jit", "warm"]["compile"] == 1.0
    assert bars["jax-jit", "cold"]["n"] == 1 and bars["jax-jit", "cold"]["compile"] == 100.0
    (c,) = found.comparisons
    assert c.step_time is not None and c.step_time.n == 3
    assert c.whole_run is not None and c.whole_run.n == 2 and c.whole_run.value < 1.1


def test_break_even_is_of_the_cold_start_that_was_measured(tmp_path: Path) -> None:
    found = analysis.analyse(write(tmp_path, variants=TWO, seeds=3))
    (row,) = found.workloads[0].tables["break-even"].rows
    assert row["longer"] == "jax-jit"
    assert row["preparation"] == pytest.approx(0.5 + 8.0 - 0.2)  # less what torch-eager traces
    assert row["steps"] == pytest.approx(row["preparation"] / row["saved"])


def test_without_a_cold_start_there_is_no_break_even(tmp_path: Path) -> None:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        summary["cold_start"] = {"absent": "the cache could not be emptied"}

    found = analysis.analyse(write(tmp_path, variants=TWO, seeds=2, edit=edit))
    (row,) = found.workloads[0].tables["break-even"].rows
    assert str(row["steps"]) == "absent: no cold start of jax-jit was measured"


# Throughput -----------------------------------------------------------------------------------


def test_throughput_counts_examples_over_seconds(tmp_path: Path) -> None:
    """One window of ten took thrice as long: the median does not see it, the count does."""

    def edit(run: Run, rows: list[dict[str, Any]]) -> None:
        for row in rows[1::5]:
            row["seconds"] *= 3

    study = write(tmp_path, variants=TWO, seeds=1, edit_windows=edit)
    found = analysis.analyse(study)
    row = step_row(found, "torch-eager")
    folder = study.run_folder(study.runs[0])
    lines = (folder / "windows.csv").read_text().splitlines()
    names, *rows = (line.split(",") for line in lines)
    seconds = [float(r[names.index("seconds")]) for r in rows if r[names.index("warm_up")] == "0"]
    summary = json.loads((folder / "summary.json").read_text())
    assert row["examples_per_second"] == pytest.approx(64 * 10 * len(seconds) / sum(seconds))
    assert row["examples_per_second"] < 0.8 * summary["steady"]["batch_per_median_step"]


def test_a_run_that_gave_up_on_a_busy_machine_has_not_failed_to_learn(tmp_path: Path) -> None:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        if (run.variant, run.seed) == ("jax-jit", 0):
            why = "gave up at step 150: the machine is busy with other work"
            summary |= {"status": "failed", "reason": why}
            summary["contention"]["gave_up"] = True

    found = analysis.analyse(write(tmp_path, variants=TWO, seeds=3, edit=edit))
    (_, row) = found.workloads[0].tables["target"].rows
    assert (row["variant"], row["n"], row["failed"]) == ("jax-jit", 2, 0)
    assert "the machine is busy" in found.comparisons[0].left_out[0][1]


def test_time_to_target_is_shown_with_preparation_and_evaluation_too(tmp_path: Path) -> None:
    found = analysis.analyse(write(tmp_path, variants=TWO, seeds=1))
    for row in found.workloads[0].tables["target"].rows:
        compiled = 1.0 if row["variant"] == "jax-jit" else 0.0
        before = 3.0 + 0.1 + 0.2 + compiled  # import, staging, trace
        epochs = found.workloads[0].view.epochs.set_index("variant").loc[row["variant"]]
        epoch = 1 + int((epochs["metric"] >= 0.93).to_numpy().argmax())
        assert row["wall"] == pytest.approx(row["median"] + before + 0.2 * epoch / 3)
