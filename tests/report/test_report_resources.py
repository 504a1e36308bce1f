"""MFU and cost follow from what the config states of a device, and are absent without it."""

from pathlib import Path

import pytest

from lockstep.report import analysis
from lockstep.report.tables import Absent, Table
from tests.report.report_studies import TWO, write

DEVICE = {"peak_flops": {"float32": 1e12}, "price_per_hour": 36.0, "currency": "EUR"}


def resources(folder: Path, **options: object) -> Table:
    study = write(folder, variants=TWO, seeds=3, **options)
    return analysis.analyse(study).workloads[0].tables["resources"]


def test_mfu_is_arithmetic_over_the_stated_peak(tmp_path: Path) -> None:
    for row in resources(tmp_path, report={"device": DEVICE}).rows:
        assert row["mfu"] == pytest.approx(row["flops_per_second"] / 1e12)


def test_cost_is_device_time_at_the_stated_price(tmp_path: Path) -> None:
    table = resources(tmp_path, report={"device": DEVICE})
    for row in table.rows:
        assert row["cost"] == pytest.approx(
            0.01 * row["device_seconds"]
        )  # 36 an hour, 0.01 a second
    units = {column.key: column.unit for column in table.columns}
    assert units["cost"] == "EUR per million examples"


def test_what_is_not_stated_is_absent_with_the_key_to_state(tmp_path: Path) -> None:
    for row in resources(tmp_path).rows:
        for key, says in (("mfu", "peak_flops.float32"), ("cost", "price_per_hour")):
            assert isinstance(row[key], Absent)
            assert f"report.device.{says}" in str(row[key])


def test_energy_is_told_by_the_example_and_to_the_target(tmp_path: Path) -> None:
    known = resources(tmp_path / "a", edit=lambda run, s: s.update(energy={"value": 960.0}))
    for row in known.rows:
        assert row["n"] == 3
        assert row["example_energy"] == pytest.approx(960 / (150 * 64))
        assert 0 < row["target_energy"] <= 960
    for row in resources(tmp_path / "b").rows:
        for key in ("energy", "example_energy", "target_energy"):
            assert row[key] == Absent(reason="no energy counter was read")
