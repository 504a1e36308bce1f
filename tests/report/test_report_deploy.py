"""Tables of what comes after training: what counts, what is withheld, and for what reason."""

from pathlib import Path
from typing import Any

import pytest

from lockstep.report import analysis, page
from lockstep.report.tables import Absent, Table
from tests.report.deploy_records import form, record, repetition, route
from tests.report.report_studies import TWO, put_json, write


def analysed(root: Path, told: Any) -> analysis.Analysis:
    study = write(root, variants=TWO, seeds=1, deploy={})
    put_json(study.deployment("mnist_cnn"), told)
    return analysis.analyse(study)


def tables(root: Path, told: Any) -> dict[str, Table]:
    return dict(analysed(root, told).workloads[0].tables)


def test_of_what_figures_are_medians_and_why_there_is_none(tmp_path: Path) -> None:
    disturbed = repetition(p99=0.1, disturbed="other work had 40% of its CPUs")
    stopped, few = repetition(p99=0.03, share=0.8), repetition()
    few["single_stream"]["queries"] = 999
    failed = {"reason": "onnxruntime is not installed here"}
    routes = (
        route("torch", "eager", disturbed, repetition(p99=0.0002), stopped),
        route("jax", "onnx", repetition(share=0.9)),
        route("torch", "onnx", few),
        route("jax", "export", failed, failed),
    )
    row, idle, brief, none = tables(tmp_path, record(*routes))["deploy-times"].rows
    assert (row["n"], row["p99"], row["share"]) == (2, 0.0002, 0.8)
    assert row["waited"] == pytest.approx(0.2)
    assert (row["p50"], row["rate64"], row["first_answer"]) == (0.0001, 25_000.0, 0.25)
    assert idle["p99"] == Absent("no repetition had 95% of a CPU") and idle["p90"] == 0.00015
    assert brief["p99"] == Absent("it takes 1,000 queries")
    assert none["n"] == 0
    assert none["p50"] == Absent("no repetition counts: onnxruntime is not installed here")


def test_a_route_that_is_not_the_same_model_has_its_reason_and_no_time(tmp_path: Path) -> None:
    refused = {"framework": "jax", "route": "onnx", "reason": "no plugin for primitive sort"}
    found = tables(tmp_path, record(route("torch", "eager", repetition()), refused))
    same, other = found["deploy-routes"].rows
    assert same["status"] == "the same"
    assert (same["relative"], same["exact"]) == pytest.approx((1e-6, 1e-15))
    assert other["status"] == "no plugin for primitive sort"
    assert len(found["deploy-times"].rows) == 1


def test_what_compression_costs_is_paired_over_seeds(tmp_path: Path) -> None:
    sums = {"compared": 1000, "equal": 999, "largest": 1}
    forms = [form("float32", 0.97, 0.96), form("w8a8", 0.96, 0.94, bytes=22_000, sums=sums),
             {"form": "int4", "reason": "channel 0 of conv1.kernel is zero throughout",
              "frameworks": {"torch": {"reason": None}}}]  # fmt: skip
    rows = tables(tmp_path, record(route("torch", "eager"), compressed=forms))["deploy-compressed"]
    base, _, integers, _, none = rows.rows
    assert base["change"] == 0
    assert integers["change"] == pytest.approx(-0.015)
    assert integers["low"] < -0.015 < integers["high"]
    assert integers["sums"] == 0.999
    assert "zero throughout" in str(none["metric"])


def test_the_page_shows_them_and_report_json_holds_them(tmp_path: Path) -> None:
    found = analysed(tmp_path, record(route("torch", "export", repetition())))
    html = page.render(found, {})
    assert "What comes after training?" in html and "Not an MLPerf result" in html
    held = analysis.as_json(found)["tables"]["mnist_cnn-deploy-times"]
    assert held[0]["route"] == "torch.export, AOTInductor"


@pytest.mark.parametrize("told", [{"schema": "lockstep-deploy/0"}, []])
def test_a_record_of_another_kind_is_excluded(tmp_path: Path, told: Any) -> None:
    found = analysed(tmp_path, told)
    (excluded,) = found.records.excluded
    assert excluded[0] == "deploy/mnist_cnn/record.json"
    assert "run the deploy stage again" in excluded[1]
    assert "deploy-routes" not in found.workloads[0].tables
    assert "What comes after training?" not in page.render(found, {})
