"""Tables of times, targets, scaling and resources say what the records hold, and what is absent."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lockstep.report import analysis, figures, result_tables, statistics, tables
from lockstep.report.tables import Absent, Table
from lockstep.study.run import Run, Scale
from tests.report.planted import analysed, on, on_jax, set_at, update
from tests.report.report_studies import TWO, VARIANTS, put_json, write


def made(root: Path, **options: Any) -> dict[str, Table]:
    return dict(analysed(root, **{"seeds": 2, **options}).workloads[0].tables)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Table]:
    """The tables of a study without anything of note."""
    return made(tmp_path_factory.mktemp("plain"))


# Cold and warm starts -------------------------------------------------------------------------


def test_cold_and_warm_starts_are_in_no_mean_together(tmp_path: Path) -> None:
    def cold(run: Run, summary: dict[str, Any]) -> None:
        summary["cache"] = "cold"
        summary["seconds"]["compile"] = 100.0

    found = analysed(tmp_path, seeds=3, edit=on_jax(cold, seed=0))
    rows = found.workloads[0].tables["time-split"].rows
    shown = {row["start"]: (row["n"], row["compile"]) for row in rows}
    assert (shown["warm"], shown["cold"]) == ((2, 1.0), (1, 100.0))
    (c,) = found.comparisons
    assert c.step_time.n == 3 and c.whole_run.n == 2 and c.whole_run.value < 1.1


def test_the_parts_of_a_run_add_up_to_it(plain: dict[str, Table]) -> None:
    """A cold start that was measured apart is no whole run, and in no mean with one."""
    apart, *whole = sorted(plain["time-split"].rows, key=lambda row: row["start"])
    assert apart["start"] == "cold, measured apart" and (apart["n"], apart["compile"]) == (1, 8.0)
    assert np.isnan(apart["total"])
    assert [row["start"] for row in whole] == ["nothing to compile", "warm"]
    for row in whole:
        parts = ("import", "staging", "trace", "compile", "first_window", "steady", "data_wait")
        assert row["total"] == pytest.approx(sum(row[p] for p in parts) + 0.2)  # evaluation


def test_break_even_is_of_the_cold_start_that_was_measured(plain: dict[str, Table]) -> None:
    (row,) = plain["break-even"].rows
    assert row["longer"] == "jax-jit"
    assert row["preparation"] == pytest.approx(0.5 + 8.0 - 0.2)  # less what torch-eager traces
    assert row["steps"] == pytest.approx(row["preparation"] / row["saved"])


def test_without_a_cold_start_or_comparable_runs_there_is_no_break_even(tmp_path: Path) -> None:
    edit = update(cold_start={"absent": "the cache could not be emptied"})
    (row,) = made(tmp_path / "a", edit=edit)["break-even"].rows
    assert str(row["steps"]) == "absent: no cold start of jax-jit was measured"
    assert not made(tmp_path / "b", parity=False)["break-even"].rows


# Steps and targets ----------------------------------------------------------------------------


def test_throughput_is_of_what_the_loss_is_a_mean_over_in_all_seconds(tmp_path: Path) -> None:
    """One window of five took thrice as long: the median does not see it, the count does."""

    def edit(run: Run, rows: list[dict[str, Any]]) -> None:
        for k, row in enumerate(rows):
            row["weight"] = 10 * row["examples"]
            row["seconds"] *= 3 if k % 5 == 1 else 1

    options = {"seeds": 1, "edit_windows": edit, "scales": ("1x1", "1x2")}
    examples = made(tmp_path / "a", **options)
    windows = pd.read_csv(next(tmp_path.rglob("torch-eager/1x1/seed-0/windows.csv")))
    rate = 64 * 10 / windows["seconds"][windows["warm_up"] == 0].mean()
    assert rate < 0.8 * 64 / examples["step-time"].rows[0]["step_median"]
    tokens = made(tmp_path / "b", edit=update(units={"weight": "masked token"}), **options)
    for name in ("step-time", "scaling"):
        assert "masked tokens/s" in [column.unit for column in tokens[name].columns]
        assert examples[name].rows[0]["throughput"] == pytest.approx(rate)
        for one, other in zip(examples[name].rows, tokens[name].rows, strict=True):
            assert other["throughput"] == pytest.approx(10 * one["throughput"])


def test_a_run_without_a_steady_state_has_an_absent_step_time(tmp_path: Path) -> None:
    absent = {"absent": "the run had no window after its first"}
    table = made(tmp_path, edit=update(steady=absent))["step-time"]
    assert table.rows[0]["step_median"] == Absent(absent["absent"])
    assert "Median (the run had no window after its first)" in tables.rendered(table)["absent"]


def test_time_to_target_is_shown_with_preparation_and_evaluation_too(tmp_path: Path) -> None:
    view = analysed(tmp_path, seeds=1).workloads[0]
    for row in view.tables["time-to-target"].rows:
        before = 3.0 + 0.1 + 0.2 + (row["variant"] == "jax-jit")  # import, staging, trace, compile
        epochs = view.epochs.set_index("variant").loc[row["variant"]]
        epoch = 1 + int((epochs["metric"] >= 0.93).to_numpy().argmax())
        assert row["wall"] == pytest.approx(row["median"] + before + 0.2 * epoch / 3)


def missed(*seeds: int):
    """Return an edit of epochs: runs of these seeds never met the target."""

    def edit(run: Run, epochs: list[dict[str, Any]]) -> None:
        for row in epochs if run.seed in seeds else ():
            row["test_accuracy"] = 0.5

    return edit


def test_times_to_target_have_one_median_in_table_and_figure(tmp_path: Path) -> None:
    """Of six seeds one never met the target, one diverged, and one was killed."""
    diverged = on(update(status="failed", reason="the loss is nan at step 149"), seed=4)
    options = {"edit": diverged, "edit_epochs": missed(3, 4), "skip": lambda run: run.seed == 5}
    study = write(tmp_path, variants=TWO, seeds=6, **options)
    for run in filter(options["skip"], study.runs):
        killed = {"identity": "x", "reason": "signal 9"}
        put_json(study.run_folder(run) / "failure.json", killed)
    found = analysis.analyse(study)
    met = found.runs[found.runs["target_reached"].eq(True)]
    reached = met.groupby("variant", observed=True)["target_seconds"].max()
    for row in found.workloads[0].tables["time-to-target"].rows:
        assert (row["n"], row["reached"], row["failed"]) == (6, 3, 2)
        assert row["median"] == reached[row["variant"]]  # of six, the third to arrive
    drawn = {p.name: p for p in figures.draw(found)["mnist_cnn"]}
    words = drawn["mnist_cnn-time-to-target"].alternative
    assert f"torch-eager: median {reached['torch-eager']:.4g} of 6 runs, 3 of them cens" in words


def test_a_run_that_diverged_never_meets_the_target_however_early_it_ended() -> None:
    status = ["finished", "finished", "failed", "failed", "failed"]
    reached, seconds = [True, True, False, False, None], [1.0, 2.0, 0.5, 0.5, np.nan]  # one killed
    known = {"status": status, "target_reached": reached, "target_seconds": seconds}
    times, reached = result_tables.to_target(pd.DataFrame(known))
    assert statistics.censored_median(times, reached) is None
    assert times.tolist() == [1.0, 2.0, 2.0, 2.0, 2.0]


# Scaling --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "forbidden", "flagged"),
    [
        (update(), None, None),
        (set_at("contract.host.cpu", "Xeon"), "CPU", None),
        (set_at("contract.engine.cudnn", "9.1.0"), None, "cuDNN"),
    ],
)
def test_efficiency_is_speed_up_over_devices_where_scales_had_equal_resources(
    tmp_path, change, forbidden, flagged
) -> None:
    edit = on(change, scale=Scale.parse("1x2"))
    rows = made(tmp_path, scales=("1x1", "1x2"), edit=edit)["scaling"].rows
    one, two = [row for row in rows if row["variant"] == "jax-jit"]
    assert (one["efficiency"], one["n"], one["flags"]) == (1, 2, None)
    assert flagged in two["flags"] if flagged else two["flags"] is None
    if forbidden:
        assert isinstance(two["efficiency"], Absent) and forbidden in two["efficiency"].reason
    else:
        assert two["efficiency"] == pytest.approx(two["speedup"] / 2)


# Resources ------------------------------------------------------------------------------------


energy = update(energy={"value": 960.0})


def test_mfu_cost_and_energy_follow_from_records_and_what_the_config_states(tmp_path, plain):
    device = {"peak_flops": {"float32": 1e12}, "price_per_hour": 36.0, "currency": "EUR"}
    table = made(tmp_path, seeds=3, report={"device": device}, edit=energy)["resources"]
    for row in table.rows:
        assert row["n"] == 3
        assert row["mfu"] == pytest.approx(row["flops_per_second"] / 1e12)
        assert row["cost"] == pytest.approx(0.01 * row["device_seconds"])  # 36 per hour
        assert row["example_energy"] == pytest.approx(960 / (150 * 64))
        assert 0 < row["target_energy"] <= 960
    assert {c.key: c.unit for c in table.columns}["cost"] == "EUR per million examples"
    unstated = "the config does not state report.device."
    for row in plain["resources"].rows:
        assert row["mfu"] == Absent(f"{unstated}peak_flops.float32")
        assert row["cost"] == row["target_cost"] == Absent(f"{unstated}price_per_hour")
        for key in ("energy", "example_energy", "target_energy"):
            assert row[key] == Absent("no energy counter was read")


def test_what_rounding_does_within_a_framework_stands_beside_the_final_metrics(tmp_path) -> None:
    edit = on(lambda run, s: s["metrics"].update(test_accuracy=0.9), variant="torch-compile")
    found = analysed(tmp_path, variants=VARIANTS, seeds=3, edit=edit)
    metric = found.runs.set_index("variant")["metric"]
    gap = (metric["torch-eager"].to_numpy() - 0.9).mean()
    rows = found.tables["final-metrics"].rows
    assert [row["within"] for row in rows] == pytest.approx([gap] * 3)


def test_what_it_takes_to_a_target_that_not_every_run_met_is_absent(tmp_path: Path) -> None:
    device = {"price_per_hour": 36.0}
    options = {"edit": energy, "edit_epochs": missed(0, 1), "report": {"device": device}}
    found = made(tmp_path, seeds=3, **options)
    for row in found["resources"].rows:
        assert row["target_energy"] == row["target_cost"] == Absent("not every run met the target")
    for row in found["time-to-target"].rows:
        assert row["median"] == row["wall"] == Absent("fewer than half of the runs met the target")


# How they are rendered ------------------------------------------------------------------------


def test_a_table_of_many_runs_shows_the_lost_ones_and_leaves_the_rest_to_the_csv() -> None:
    rows = [{"status": "finished"}] * 1_000 + [{"status": "failed"}]
    shown = tables.rendered(tables.table("", "status | Status", rows))
    assert shown["hidden"] == 1_001 - tables.MOST_ROWS
    assert shown["rows"][0][0]["text"] == "failed"


def test_numbers_of_a_column_have_their_points_below_each_other() -> None:
    rows = [{"x": 0.006364}, {"x": 0.2058}]
    shown = tables.rendered(tables.table("", "x | X | ms | 4g", rows))
    assert [row[0]["text"] for row in shown["rows"]] == ["6.36", "205.80"]


def test_a_csv_is_in_si_units_with_full_precision_and_says_what_is_absent() -> None:
    rows = [{"x": 1 / 3, "n": 2, "y": Absent("no, really")}, {"n": float("nan"), "y": None}]
    table = tables.table("", "x | X | ms | 4g\nn | N | | d\ny | Y", rows)
    assert tables.as_csv(table) == b'x,n,y\n0.3333333333333333,2,"absent: no, really"\n,,\n'
