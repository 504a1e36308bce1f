"""Times are compared only where a run had its machine to itself, and where it is known."""

from pathlib import Path
from typing import Any

import pytest

from lockstep.report import analysis, comparability, page, sentences, verdicts
from lockstep.study.run import Run
from tests.report.planted import comparison
from tests.report.report_studies import TWO, write


def busy(*seeds: int, windows: int = 1_000):
    """Return an edit: in PyTorch's runs of these seeds other programs took the cores."""

    def edit(run: Run, rows: list[dict[str, Any]]) -> None:
        if run.variant == "torch-eager" and run.seed in seeds:
            for row in rows[1 : 1 + windows]:
                row["seconds"] *= 50
                row["foreign_cpu_share"] = 0.9

    return edit


def analysed(root: Path, **options: Any) -> tuple[analysis.Analysis, list[str], Any]:
    """Return an analysis, what the terminal says, and PyTorch's row of step times."""
    found = analysis.analyse(write(root, variants=TWO, **options))
    lines = sentences.terminal_lines(analysis.as_json(found)["verdicts"][0])
    row = found.workloads[0].tables["step-time"].rows[0]
    assert row["variant"] == "torch-eager"
    return found, lines, row


def test_a_study_on_a_busy_machine_has_no_verdict_on_time_and_says_why(tmp_path: Path) -> None:
    found, lines, row = analysed(tmp_path, seeds=3, edit_windows=busy(0, 1, 2, windows=12))
    (c,) = found.comparisons
    assert c.kind == verdicts.NOT_COMPARABLE and c.quality_kind != verdicts.NOT_COMPARABLE
    why = "torch-eager: other programs used its CPU cores: only 2 of its 14 timed windows"
    assert "are not comparable in time" in lines[0] and why in lines[0]
    assert why in page.render(found, {})
    assert "other programs" in str(row["step_median"])


def test_a_disturbed_run_among_others_is_left_out_of_time_by_name(tmp_path: Path) -> None:
    found, lines, _ = analysed(tmp_path, edit_windows=busy(2))
    (c,) = found.comparisons
    assert c.kind == verdicts.FASTER and c.step_time.n == c.whole_run.n == 4
    assert 0.48 < c.step_time.value < 0.52
    assert any("left out of step time: seed 2: torch-eager" in line for line in lines)
    assert "Seed 2 is left out of step time: torch-eager" in page.render(found, {})


def test_disturbed_windows_do_not_count(tmp_path: Path) -> None:
    quiet = comparison(tmp_path / "quiet")
    found, _, row = analysed(tmp_path, edit_windows=busy(0, 1, 2, 3, 4, windows=5))
    (c,) = found.comparisons
    assert c.kind == verdicts.FASTER and not c.untimed and row["disturbed"] == 25
    assert c.step_time.value == pytest.approx(quiet.step_time.value, rel=0.02)


@pytest.mark.parametrize(
    ("contention", "why"),
    [
        (None, "the records are older than this measurement"),
        ({"watched": False, "reason": "this kernel has no schedstat"}, "this kernel has no"),
        ({"watched": True}, None),
    ],
)
def test_where_contention_was_not_watched_the_verdict_says_so(tmp_path, contention, why) -> None:
    edit = lambda run, summary: summary.update(contention=contention)  # noqa: E731
    text = sentences.sentence(comparison(tmp_path, edit))
    assert f" Contention was not watched: {why}" in text if why else "watched" not in text


def test_a_run_that_gave_up_on_a_busy_machine_has_not_failed_to_learn(tmp_path: Path) -> None:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        if (run.variant, run.seed) == ("jax-jit", 0):
            why = "gave up at step 150: the machine is busy with other work"
            summary |= {"status": "failed", "reason": why}
            summary["contention"]["gave_up"] = True

    found, *_ = analysed(tmp_path, seeds=3, edit=edit)
    (_, row) = found.workloads[0].tables["time-to-target"].rows
    assert (row["variant"], row["n"], row["failed"]) == ("jax-jit", 2, 0)
    assert "the machine is busy" in found.comparisons[0].left_out[0][1]


# What was chosen ------------------------------------------------------------------------------


def test_every_declared_setting_is_in_the_verdict(tmp_path: Path) -> None:
    torch = {**TWO["torch-eager"], "memory_format": "channels_last"}
    jax = {**TWO["jax-jit"], "convolution": "im2col", "steps_per_dispatch": 5}
    c = comparison(tmp_path, variants={"torch-eager": torch, "jax-jit": jax})
    assert sentences.sentence(c).startswith(
        "jax-jit is faster, with 5 steps per dispatch and convolutions as im2col, which Lockstep "
        "brings, where torch-eager has images in channels_last memory format: it takes 0."
    )


def test_a_setting_that_no_phrase_knows_appears_by_its_name() -> None:
    own = {"framework": "jax", "mode": "jit", "precision": "float32", "wait_policy": "passive"}
    other = own | {"framework": "torch", "mode": "eager", "wait_policy": "active"}
    assert comparability.phrases(own, other) == ["wait_policy passive"]
    plain = {"framework": "torch", "attention": "written", "randomness": "shared"}
    fused = {**plain, "attention": "fused"}
    assert comparability.phrases(fused, plain) == ["the framework's own fused attention"]
    assert comparability.phrases(plain, {}) == comparability.phrases(plain, fused) == []
