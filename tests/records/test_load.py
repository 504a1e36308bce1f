"""Whatever lies in a study's folder, the report names what it cannot use and reports the rest."""

import copy
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.errors import UserError
from lockstep.records import load, parity_verdict, record_validation
from lockstep.records.record_validation import FAILED, FINISHED
from lockstep.report import analysis, build, drawing, figures, page, result_tables
from tests.archive.tamper import put
from tests.report.planted import changed, update
from tests.report.report_studies import TWO, put_json, write

Damage = Callable[[Path], object]


def text(name: str, content: str) -> Damage:
    return lambda folder: (folder / name).write_text(content)


def replaced(name: str, old: str, new: str) -> Damage:
    return lambda f: (f / name).write_text((f / name).read_text().replace(old, new, 1))


def change(**values: Any) -> Damage:
    return lambda folder: changed(folder / "summary.json", lambda s: s.update(values))


def at(path: str, value: Any) -> Damage:
    """Change a field of the summary (see `put`)."""
    return lambda folder: changed(folder / "summary.json", lambda s: put(s, path, value))


def later_epochs(folder: Path) -> None:
    """Move the time at which the first epoch ended."""
    head, row, *rest = (folder / "epochs.csv").read_text().splitlines(keepends=True)
    (folder / "epochs.csv").write_text("".join([head, f"{row.rpartition(',')[0]},9.0\n", *rest]))


def more_columns(folder: Path) -> None:
    head, *rows = (folder / "epochs.csv").read_text().splitlines()
    (folder / "epochs.csv").write_text("\n".join([f"{head},x", *(f"{r},1" for r in rows), ""]))


def spent_more(folder: Path) -> None:
    """The window in which the loss was no number is in the clock and in no table."""
    change(status="failed", reason="nan", flops={})(folder)
    at("seconds.training", 60.0)(folder)


def left(reason: str) -> Damage:
    """A run that left only a failure."""

    def damage(folder: Path) -> None:
        (folder / "summary.json").unlink()
        put_json(folder / "failure.json", {"identity": "x", "reason": reason})

    return damage


def stored(**edits: Callable[[np.ndarray], np.ndarray]) -> Damage:
    """Change arrays of the steps."""

    def damage(folder: Path) -> None:
        with np.load(folder / "steps.npz") as file:
            arrays = dict(file)
        edited = {name: edit(arrays[name]) for name, edit in edits.items()}
        np.savez(folder / "steps.npz", **arrays | edited)

    return damage


UNSOUND = [
    (text("summary.json", ""), "summary.json is empty"),
    (text("summary.json", '{"schema": "lockstep-rec'), "not whole"),
    (text("summary.json", "[1, 2]"), "names no schema"),
    (text("summary.json", '{"schema": "lockstep-record/1"}'), "no sound field 'study'"),
    (text("summary.json", "[" * 100_000), "summary.json is not whole (maximum recursion"),
    (change(schema="lockstep-record/0"), "schema 'lockstep-record/0'; this version reads"),
    (change(study="other"), "foreign: it is the record of other/"),
    (change(status="done"), "contradictory: its status is 'done'"),
    (change(steps=140), "contradictory: 140 steps, but windows.csv has 150"),
    (change(total_steps=300), "contradictory: finished after 150 of 300 steps"),
    (change(seconds={"training": -1.0}), "contradictory: training took -1.0 seconds"),
    (change(metrics={"train_loss": 0.5}), "contradictory: train_loss is not what"),
    (at("contract.recipe", {}), "another recipe than the study now has"),
    (at("contract.variant", {"framework": "torch"}), "other settings than the variant now"),
    (at("target.value", 10**400), "its records cannot be read (OverflowError"),
    (at("target.training_seconds", 1e-3), "it met its target at step 150 after 0.001 s"),
    (at("target.step", 50), "it met its target at step 50"),
    (at("target.metric", "loss"), "its target is a loss of 0.93, its recipe's a accuracy"),
    (at("steady.windows", 1000), "steady windows is 1000"),
    (at("steady.step_seconds.median", lambda v: v / 10), "its tables give 0.0"),
    (at("seconds.data_wait", 0.5), "data_wait is 0.5, its"),
    (at("flops.per_second", 1e20), "FLOP/s is 1e+20"),
    (later_epochs, "an epoch's training_seconds is"),
    (text("epochs.csv", ""), "epochs.csv has no row"),
    (replaced("epochs.csv", "\n0,", "\ninf,"), "a value in 'epoch'"),
    (text("epochs.csv", "epoch,step,train_loss\n0,1,2"), "epochs.csv is truncated"),
    (lambda f: (f / "epochs.csv").unlink(), "epochs.csv cannot be read"),
    (text("windows.csv", "this is\nnot,a\ntable\n"), "windows.csv is truncated"),
    (text("windows.csv", "step,steps\n0,ten\n"), "windows.csv is not a table of numbers"),
    (text("windows.csv", "step,steps\n0,150\n"), "windows.csv has no column"),
    (replaced("windows.csv", ",10,", ",0,"), "a window without steps"),
]
LOST = [
    (change(status="failed", reason="the loss is nan at step 149"), FAILED, "the loss is nan at"),
    (change(metrics={"train_loss": float("nan")}), FAILED, "train_loss is nan"),
    (spent_more, FAILED, "nan"),
    (left("interrupted"), load.INTERRUPTED, "start again"),
    (left("signal 9"), FAILED, "memory"),
    (left("out of memory"), FAILED, "out of memory; see its log"),
    (left("signal 15"), load.INTERRUPTED, "start again"),
]
STEPS = [
    (stored(checksum=lambda a: a[::-1]), "its batches are not those of summary.json"),
    (stored(loss=lambda a: a[:-1]), "holds 149 of 150 steps"),
    (stored(loss=lambda a: np.full(a.shape, "one")), "no sound array 'loss'"),
    (text("steps.npz", "no arrays"), "steps.npz is not readable"),
    (lambda f: (f / "steps.npz").unlink(), "not readable (No such file"),
]
"""The run is used without its steps."""


def test_what_cannot_be_used_is_named_and_the_rest_is_used(tmp_path: Path) -> None:
    """A study whose runs are each damaged in another way, but for the last two."""
    cases = [(damage, load.EXCLUDED, named, None) for damage, named in UNSOUND]
    cases += [(damage, status, named, None) for damage, status, named in LOST]
    cases += [(damage, FINISHED, None, named) for damage, named in STEPS]
    cases += [(more_columns, FINISHED, None, None), (lambda folder: None, FINISHED, None, None)]
    only = {"torch-eager": TWO["torch-eager"]}
    study = write(tmp_path, variants=only, seeds=len(cases), manifests=False)
    for run, (damage, *_) in zip(study.runs, cases):
        damage(study.run_folder(run))
    runs = load.load(study).runs
    for record, (_, status, why, of_steps) in zip(runs, cases, strict=True):
        assert record.status == status, why
        for found, named in ((record.reason, why), (record.steps_problem, of_steps)):
            assert found is None if named is None else named in found
        assert (record.first_losses is None) == (status != FINISHED or of_steps is not None)
    assert "x" in runs[-2].epochs


def test_runs_that_left_nothing_are_missing_and_those_of_no_config_are_named(tmp_path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2, skip=lambda run: run.seed == 1)
    put_json(study.run_folder(study.runs[2]) / "run.json", {})
    name = "runs/mnist_cnn/old-variant/1x1/seed-0"
    (study.root / name).mkdir(parents=True)
    found = load.load(study)
    assert [(r.status, r.reason) for r in found.runs[2:]] == [
        (load.MISSING, "started, but left no record"),
        (load.MISSING, "never started"),
    ]
    assert found.excluded == [(name, "the study's config does not ask for this run")]


def test_a_manifest_that_is_not_sound_or_older_binds_nothing_and_is_named(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2)
    run, path = study.runs[0].name, study.manifest(next(iter(study.blocks)))
    whole = json.loads(path.read_text())
    entries = (None, [], {"identity": None, "sha256": {}}, {"sha256": None})
    texts = ["{", *(json.dumps({**whole, "runs": {run: entry}}) for entry in entries)]
    older = {**whole, "runs": {run: {**whole["runs"][run], "identity": "9" * 64}}}
    told = dict.fromkeys(texts, "not bound by their hashes")
    told[json.dumps(older)] = f"its entry of {run} has another identity"
    for text, says in told.items():
        path.write_text(text)
        records = load.load(study)
        assert all(run.status == FINISHED for run in records.runs)
        ((name, why),) = records.excluded
        assert study.root / name == path and says in why


# Anything in any field ------------------------------------------------------------------------

NONSENSE: tuple[Any, ...] = (None, "text", [], [None], {}, -1, float("nan"), float("inf"), True)


def spoiled(whole: Any, nonsense: Sequence[Any], part: Any = None) -> Iterator[Any]:
    """Yield copies in which one value, at any depth, is nonsense, or missing in its object."""
    part = whole if part is None else part
    for key in [*part] if isinstance(part, dict) else range(len(part[:1])):
        kept = part[key]
        for new in nonsense:
            part[key] = new
            yield copy.deepcopy(whole)
        part[key] = kept
        if isinstance(kept, dict | list) and key != "recipe":
            yield from spoiled(whole, nonsense, kept)
        if isinstance(part, dict):
            del part[key]
            yield copy.deepcopy(whole)
            part[key] = kept


def test_any_nonsense_in_any_field_of_a_summary_keeps_no_other_run_from_its_report(tmp_path):
    """One study whose runs have each another nonsense in another field, and one page of it."""
    template = write(tmp_path / "template", variants=TWO, seeds=1)
    folder = template.run_folder(template.runs[0])
    whole = json.loads((folder / "summary.json").read_text())
    host = whole["contract"]["host"]
    host |= {"nodes": [dict(host)], "image": {"identity": "i"}}
    summaries = [*spoiled(whole, NONSENSE)]
    study = write(tmp_path, variants=TWO, seeds=len(summaries) + 3, skip=lambda run: run.seed > 2)
    for seed, summary in enumerate(summaries, 3):
        run = next(r for r in template.runs if r.variant == "torch-eager")
        target = study.root / "runs" / run.name.replace("seed-0", f"seed-{seed}")
        shutil.copytree(folder, target)
        if summary.get("seed") == 0:
            summary["seed"] = seed
        (target / "summary.json").write_text(json.dumps(summary))
    found = analysis.analyse(study)
    page.render(found, figures.draw(found))
    assert found.comparisons[0].seeds[:3] == [0, 1, 2]
    assert found.comparisons[0].kind == "faster"
    assert all(r.reason for r in found.records.runs if r.status in (load.EXCLUDED, FAILED))
    assert sum(r.status == load.EXCLUDED for r in found.records.runs) > len(summaries) / 2


def test_any_nonsense_in_any_field_of_a_parity_verdict_proves_nothing_at_worst(tmp_path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2)
    path = study.verdict("mnist_cnn")
    whole = json.loads(path.read_text())
    whole["about"] = {"jax-jit": {"variant": dict(study.variant("jax-jit")), "seed": 0}}
    found = analysis.analyse(study)
    verdicts, styles = [*spoiled(whole, NONSENSE[::2])], drawing.looks(TWO)
    read, curves = 0, json.dumps(whole["comparisons"]["jax-jit"]["curves"])
    for verdict in verdicts:
        put_json(path, verdict)
        try:
            parity = {"mnist_cnn": parity_verdict.read(study, "mnist_cnn")}
        except record_validation.Unsound as problem:
            assert str(problem)
            continue
        read += 1
        again = load.Records(study=study, runs=found.records.runs, parity=parity, excluded=())
        view = replace(found.workloads[0], records=again)
        result_tables.parity(view)
        if not any(parity_verdict.parity_problem(again, "mnist_cnn", v) for v in TWO):
            assert parity_verdict.claim(again, "mnist_cnn")
        compared = parity["mnist_cnn"]["comparisons"].get("jax-jit")
        if compared and json.dumps(compared["curves"]) != curves:
            figures.parity_curves(again, "mnist_cnn", styles)
    assert 0 < read < len(verdicts) / 2


# What becomes of it in the report -------------------------------------------------------------


def test_a_report_leaves_out_what_was_changed_after_its_block_and_is_not_complete(tmp_path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2)
    build.build(study)
    assert study.complete_report().is_file()
    assert "partial report" not in study.report().read_text()
    at("steady.windows", 1)(study.run_folder(study.runs[0]))
    with pytest.raises(UserError, match=r"1 of 4 runs .* cannot be used .*sha256 differs"):
        build.build(study)
    build.build(study, partial=True)
    assert not study.complete_report().exists()


DIVERGED = update(status="failed", reason="the loss is nan")
BRIEF = update(steady={"absent": "too short"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"skip": lambda run: True, "parity": False}, ["No run of this workload", "never started"]),
        ({"edit": DIVERGED}, ["the loss is nan"]),
        ({"edit": BRIEF, "scales": ("1x1", "1x2")}, ["no pair of runs with a step time"]),
    ],
)
def test_a_study_that_has_little_to_show_still_has_a_report(tmp_path, options, words) -> None:
    study = write(tmp_path, variants=TWO, seeds=2, **options)
    build.build(study, partial=True)
    html = study.report().read_text()
    assert all(word in html for word in words)
    assert "never: its steps" not in html
