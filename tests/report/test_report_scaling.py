"""Efficiency is of runs by the same means; what else differed between scales is named."""

from pathlib import Path
from typing import Any

import pytest

from lockstep.report import analysis, drawing, figures
from lockstep.report.tables import Absent, Table
from lockstep.study.run import Run
from tests.report.report_studies import TWO, Edit, write

SCALES = ("1x1", "1x2")


def strong(root: Path, edit: Edit | None = None) -> Table:
    study = write(root, variants=TWO, seeds=2, scales=SCALES, edit=edit)
    return analysis.analyse(study).workloads[0].tables["scaling"]


def at_two(change: Any) -> Edit:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        if str(run.scale) == "1x2":
            change(summary["contract"])

    return edit


def test_efficiency_is_speed_up_over_devices_with_its_runs_counted(tmp_path: Path) -> None:
    for row in strong(tmp_path).rows:
        assert row["n"] == 2 and row["flags"] == ""
        assert row["efficiency"] == pytest.approx(row["speedup"] / row["devices"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["host"]["gpus"][0].update(name="A100"), "GPU model"),
        (lambda c: c["host"].update(cpu="Xeon"), "CPU"),
    ],
)
def test_another_device_at_a_scale_makes_efficiency_absent(tmp_path, change, named) -> None:
    rows = strong(tmp_path, at_two(change)).rows
    one, two = [r for r in rows if r["variant"] == "jax-jit"]
    assert one["efficiency"] == 1
    assert isinstance(two["efficiency"], Absent) and named in two["efficiency"].reason
    assert isinstance(two["speedup"], Absent) and two["examples_per_second"] > 0
    picture = figures.scaling_lines("w", rows, drawing.looks(TWO))
    assert picture is not None and f"jax-jit at 1x2 absent: {named}" in picture.alternative


def test_another_library_at_a_scale_is_flagged_beside_efficiency(tmp_path: Path) -> None:
    table = strong(tmp_path, at_two(lambda c: c["engine"].update(cudnn="9.1.0")))
    one, two = [r for r in table.rows if r["variant"] == "jax-jit"]
    assert "cuDNN" in two["flags"] and one["flags"] == ""
    assert two["efficiency"] == pytest.approx(two["speedup"] / 2)
