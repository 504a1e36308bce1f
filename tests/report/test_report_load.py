"""Whatever lies in a study's folder, the report names what it cannot use and reports the rest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.errors import UserError
from lockstep.report import analysis, build, load, record_validation, tables
from lockstep.report.load import Record
from lockstep.study import Study
from tests.report.report_studies import TWO, put_csv, put_json, write, write_manifest


def edited(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a summary in place."""
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    change(summary)
    path.write_text(json.dumps(summary))


def first(root: Path, damage: Callable[[Path, Study], None]) -> Record:
    """Write a study, damage its first run, and return that run as it is read."""
    study = write(root, variants=TWO, seeds=3, manifests=False)
    damage(study.run_folder(study.runs[0]), study)
    records = load.load(study)
    assert all(run.status == load.FINISHED for run in records.runs[1:])
    return records.runs[0]


def text(name: str, content: str) -> Callable[[Path, Study], None]:
    return lambda folder, study: (folder / name).write_text(content) and None


def change(**values: Any) -> Callable[[Path, Study], None]:
    return lambda folder, study: edited(folder, lambda summary: summary.update(values))


def within(part: str, **values: Any) -> Callable[[Path, Study], None]:
    return lambda folder, study: edited(folder, lambda summary: summary[part].update(values))


def nested(depth: int) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {"inner": value}
    return value


def later_epochs(folder: Path, study: Study) -> None:
    """Move the time at which the first epoch ended."""
    head, first, *rest = (folder / "epochs.csv").read_text().splitlines(keepends=True)
    row = first.rpartition(",")[0]
    (folder / "epochs.csv").write_text("".join([head, f"{row},9.0\n", *rest]))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda f, s: (f / "summary.json").write_text(""), "summary.json is empty"),
        (text("summary.json", '{"schema": "lockstep-rec'), "not whole"),
        (text("summary.json", "[1, 2]"), "names no schema"),
        (text("summary.json", '{"schema": "lockstep-record/1"}'), "no sound field 'study'"),
        (change(schema="lockstep-record/0"), "schema 'lockstep-record/0'; this version reads"),
        (change(study="other"), "foreign: it is the record of other/"),
        (change(seed=7), "foreign"),
        (change(status="done"), "contradictory: its status is 'done'"),
        (change(steps=140), "contradictory: 140 steps, but windows.csv has 150"),
        (change(total_steps=300), "contradictory: finished after 150 of 300 steps"),
        (change(seconds={"training": -1.0}), "contradictory: training took -1.0 seconds"),
        (change(metrics={"train_loss": 0.5}), "contradictory: train_loss is not what"),
        (change(contract={}), "no sound field 'contract.variant'"),
        (text("epochs.csv", ""), "epochs.csv has no row"),
        (text("epochs.csv", "epoch,step,train_loss\n0,1"), "epochs.csv is truncated"),
        (text("windows.csv", "this is\nnot,a\ntable\n"), "windows.csv is truncated"),
        (text("windows.csv", "step,steps\n0,ten\n"), "windows.csv is not a table of numbers"),
        (text("windows.csv", "step,steps\n0,150\n"), "windows.csv has no column"),
        (lambda f, s: (f / "epochs.csv").unlink(), "epochs.csv cannot be read"),
        (text("summary.json", "[" * 100_000), "summary.json is not whole (maximum recursion"),
        (within("contract", deep=nested(500)), "nested more than 32 deep"),
        (within("target", value=10**400), "an integer of 401 digits"),
        (within("target", training_seconds=1e-3), "it met its target at step 150 after 0.001 s"),
        (within("target", step=50), "it met its target at step 50"),
        (within("target", metric="loss"), "its target is a loss of 0.93, its recipe's a accuracy"),
        (within("target", value=0.5), "its target is a accuracy of 0.5"),
        (within("steady", examples_per_second=1e9), "steady examples_per_second is 1e+09"),
        (within("steady", data_wait_fraction=0.5), "steady data_wait_fraction is 0.5"),
        (within("steady", windows=1000), "steady windows is 1000"),
        (within("seconds", training=0.5), "training is 0.5 s"),
        (within("seconds", data_wait=0.5), "data_wait is 0.5 s"),
        (within("flops", per_second=1e20), "FLOP/s is 1e+20"),
        (later_epochs, "an epoch's training_seconds is"),
    ],
)
def test_an_unsound_record_is_set_apart_by_name(tmp_path, damage, named: str) -> None:
    record = first(tmp_path, damage)
    assert record.status == load.APART
    assert named in record.reason


def test_bytes_that_are_no_text_are_set_apart(tmp_path: Path) -> None:
    for name in ("summary.json", "epochs.csv", "windows.csv"):
        record = first(
            tmp_path / name, lambda f, s, name=name: (f / name).write_bytes(bytes(range(256)))
        )
        assert record.status == load.APART and name in record.reason


def test_a_run_of_another_configuration_is_set_apart(tmp_path: Path) -> None:
    def other_rate(folder: Path, study: Study) -> None:
        edited(folder, lambda s: s["contract"]["recipe"].update(epochs=99))

    assert "another recipe" in first(tmp_path, other_rate).reason


def test_a_nan_run_is_a_failed_row_with_its_reason(tmp_path: Path) -> None:
    record = first(tmp_path, change(status="failed", reason="the loss is nan at step 149"))
    assert (record.status, record.reason) == (load.FAILED, "the loss is nan at step 149")


def test_a_finished_run_whose_metric_is_not_finite_has_failed(tmp_path: Path) -> None:
    def nan(folder: Path, study: Study) -> None:
        edited(folder, lambda s: s["metrics"].update(train_loss=float("nan")))

    record = first(tmp_path, nan)
    assert record.status == load.FAILED and "train_loss is nan" in record.reason


@pytest.mark.parametrize(
    ("reason", "status", "named"),
    [
        ("interrupted", load.INTERRUPTED, "start again"),
        ("signal 9", load.FAILED, "memory"),
        ("out of memory", load.FAILED, "out of memory; see its log"),
        ("signal 15", load.INTERRUPTED, "start again"),
        ("exit status 1", load.FAILED, "exit status 1"),
    ],
)
def test_a_run_that_left_only_a_failure_says_why(tmp_path, reason, status, named) -> None:
    def damage(folder: Path, study: Study) -> None:
        (folder / "summary.json").unlink()
        put_json(folder / "failure.json", {"identity": "x", "reason": reason})

    record = first(tmp_path, damage)
    assert record.status == status and named in record.reason


def test_runs_that_never_started_or_left_nothing_are_missing(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2, skip=lambda run: run.seed == 1)
    put_json(study.run_folder(study.runs[2]) / "run.json", {})
    records = load.load(study)
    assert [(r.status, r.reason) for r in records.runs[2:]] == [
        (load.MISSING, "started, but left no record"),
        (load.MISSING, "never started"),
    ]


def test_a_run_that_the_config_does_not_ask_for_is_named(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2)
    stranger = study.root / "runs" / "mnist_cnn" / "old-variant" / "1x1" / "seed-0"
    stranger.mkdir(parents=True)
    assert load.load(study).apart == [
        ("runs/mnist_cnn/old-variant/1x1/seed-0", "the study's config does not ask for this run")
    ]


def test_a_manifest_of_an_earlier_run_binds_nothing_and_is_named(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2)
    edited(study.run_folder(study.runs[0]), lambda s: s.update(identity="9" * 64))
    records = load.load(study)
    assert records.runs[0].status == load.FINISHED
    ((name, why),) = records.apart
    assert name.startswith("blocks/") and study.runs[0].name in why
    assert "not bound by its block's manifest" in why


def test_a_broken_manifest_keeps_no_run_from_being_read(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2)
    for name in study.blocks:
        study.manifest(name).write_text("{")
    assert all(run.status == load.FINISHED for run in load.load(study).runs)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "not whole"),
        ('{"schema": "lockstep-parity/9"}', "not a parity verdict that this version reads"),
        ('{"schema": "lockstep-parity/3"}', "run the parity stage again"),
        ('{"schema": "lockstep-parity/4", "workload": "other"}', "foreign"),
        ('{"schema": "lockstep-parity/4", "workload": "mnist_cnn"}', "no comparisons"),
    ],
)
def test_an_unsound_parity_verdict_proves_nothing(tmp_path, content: str, named: str) -> None:
    study = write(tmp_path, variants=TWO, seeds=2)
    study.verdict("mnist_cnn").write_text(content)
    found = analysis.analyse(study)
    ((name, reason),) = found.records.apart
    assert name == "parity/mnist_cnn/verdict.json" and named in reason
    assert found.comparisons[0].kind == "not comparable"


def test_a_parity_verdict_that_contradicts_itself_proves_nothing(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2)
    path = study.verdict("mnist_cnn")
    verdict = json.loads(path.read_text())
    verdict["comparisons"]["jax-jit"]["rungs"][2]["passed"] = False
    path.write_text(json.dumps(verdict))
    assert "contradictory" in load.load(study).apart[0][1]


def test_steps_that_contradict_the_summary_are_not_drawn(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2, manifests=False)
    path = study.run_folder(study.runs[0]) / "steps.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **{**arrays, "checksum": arrays["checksum"][::-1]})
    (study.run_folder(study.runs[1]) / "steps.npz").write_bytes(b"PK\x03\x04")
    reasons = [reason for _, reason in analysis.analyse(study).records.apart]
    assert any("its batches are not those of the summary" in r for r in reasons)
    assert any("not readable" in r for r in reasons)


@pytest.mark.parametrize("name", ["loss", "checksum"])
def test_steps_that_are_no_numbers_are_named_and_the_rest_is_reported(tmp_path, name) -> None:
    study = write(tmp_path, variants=TWO, seeds=2, manifests=False)
    path = study.run_folder(study.runs[0]) / "steps.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    np.savez(path, **{**arrays, name: np.full(arrays[name].shape, "one")})
    records = load.load(study)
    assert "holds no numbers of steps" in (records.runs[0].steps_problem or "")
    assert all(
        run.status == load.FINISHED and run.first_losses is not None for run in records.runs[1:]
    )


def test_a_failed_run_may_have_spent_more_than_its_whole_windows(tmp_path: Path) -> None:
    """The window in which the loss was no number is in the clock and in no table."""

    def fail(folder: Path, study: Study) -> None:
        edited(folder, lambda s: s.update(status="failed", reason="nan", flops={}))
        edited(folder, lambda s: s["seconds"].update(training=60.0, data_wait=1.0))

    record = first(tmp_path, fail)
    assert (record.status, record.reason) == (load.FAILED, "nan")


# What becomes of it in the report -------------------------------------------------------------


def test_a_study_with_missing_runs_is_refused_unless_it_may_be_partial(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=3, skip=lambda run: run.seed == 2)
    with pytest.raises(UserError, match=r"2 of 6 runs have not ended.*seed-2.*--partial"):
        build.build(study)
    build.build(study, partial=True)
    page = study.report().read_text()
    assert "This is a partial report" in page
    assert not study.complete_report().exists()
    assert "2 of 6 runs are missing" in page


def test_a_whole_study_does_not_say_that_it_is_partial(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2)
    build.build(study)
    assert "partial report" not in study.report().read_text()
    assert study.complete_report().is_file()
    build.build(study, partial=True)
    assert not study.complete_report().exists()


def test_a_report_that_leaves_a_tampered_run_out_is_not_complete(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=3)
    edited(study.run_folder(study.runs[0]), lambda s: s["steady"].update(windows=1))
    with pytest.raises(UserError, match=r"1 of 6 runs .* cannot be used .*sha256 differs"):
        build.build(study)
    build.build(study, partial=True)
    assert not study.complete_report().exists()


def test_a_study_without_any_record_still_has_a_report(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2, skip=lambda run: True, parity=False)
    build.build(study, partial=True)
    page = study.report().read_text()
    assert "no run of this workload finished" in page
    assert "never started" in page


def test_failed_runs_alone_make_a_report_too(tmp_path: Path) -> None:
    study = write(
        tmp_path,
        variants=TWO,
        seeds=2,
        edit=lambda run, s: s.update(status="failed", reason="the loss is nan at step 149"),
    )
    build.build(study)
    assert "the loss is nan at step 149" in study.report().read_text()


def test_a_run_without_a_steady_state_has_an_absent_step_time(tmp_path: Path) -> None:
    reason = {"absent": "the run had no window after its first"}
    study = write(tmp_path, variants=TWO, seeds=2, edit=lambda run, s: s.update(steady=reason))
    found = analysis.analyse(study)
    table = found.workloads[0].tables["step-time"]
    assert table.rows[0]["step_median"] == tables.Absent(reason=reason["absent"])
    assert found.comparisons[0].kind == "no pair"
    build.build(study)
    assert "Absent: Median (the run had no window after its first)" in study.report().read_text()


def test_epochs_may_hold_more_columns_than_are_known(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2, manifests=False)
    folder = study.run_folder(study.runs[0])
    columns = record_validation.read_columns((folder / "epochs.csv").read_bytes(), "epochs.csv")
    rows = [dict(zip(columns, row, strict=True)) for row in np.array(list(columns.values())).T]
    put_csv(folder / "epochs.csv", [{**row, "test_top5": 1.0} for row in rows])
    for name in study.blocks:
        write_manifest(study, name)
    assert load.load(study).runs[0].status == load.FINISHED
