"""What is not proven passes for nothing: of what parity is a proof, and for which runs."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lockstep.parity import OVER_TWO, cause, compare, update
from lockstep.records import load, parity_verdict
from lockstep.records.record_validation import Unsound
from lockstep.report import analysis, firststep, page, sentences, verdicts
from lockstep.report.analysis import Analysis
from lockstep.study import Study
from lockstep.study.run import Run
from lockstep.workloads import optimizers
from tests.parity.small import ABOUT, small
from tests.report.planted import analysed, changed, on_jax, threats_of
from tests.report.report_studies import (
    TWO,
    VARIANTS,
    config,
    passing_verdict,
    put_csv,
    put_json,
    write,
)

Verdict = dict[str, Any]


def headline(found: Analysis, scale: str = "1x1") -> dict[str, str]:
    return next(here["parity"] for here in page.answers(found) if here["scale"] == scale)


@pytest.fixture(scope="module")
def fair(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return write(tmp_path_factory.mktemp("fair"), variants=TWO, seeds=1)


def rungs(verdict: Verdict) -> list[dict[str, Any]]:
    return verdict["comparisons"]["jax-jit"]["rungs"]


def traced(settings: dict[str, Any], seed: int = 0) -> Callable[[Verdict], object]:
    """Have a verdict be of a trace of JAX that was made with other settings."""
    variant = {**config(Path())["variants"]["jax-jit"], **settings}
    return lambda verdict: verdict.update(about={"jax-jit": {"variant": variant, "seed": seed}})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda v: rungs(v).pop(), "jax-jit was not compared on rung float32 batches"),
        (lambda v: rungs(v).append(rungs(v)[0]), "has a rung twice"),
        (lambda v: rungs(v)[3].update(worst="nothing"), "nothing was compared"),
        (lambda v: rungs(v)[3].update(tolerance="infinity"), "beyond its tolerance"),
        (lambda v: rungs(v)[3].update(value="infinity"), "beyond its tolerance"),
        (lambda v: rungs(v)[2].update(passed=False), "conclusion is not that of its rungs"),
        (lambda v: v.update(passed=False), "conclusion is not that of its comparisons"),
        (lambda v: v.update(reference="another"), "no trace of its reference"),
        (lambda v: v.update(schema="lockstep-parity/4"), "run the parity stage again"),
        (lambda v: v.pop("comparisons"), "no sound field 'comparisons'"),
        (traced({"mode": "eager"}), "other settings than jax-jit now has"),
        (traced({}, seed=99), "made with seed 99"),
    ],
)
def test_a_verdict_that_proves_less_than_all_rungs_proves_nothing(fair, change, named) -> None:
    verdict = passing_verdict(fair, "mnist_cnn")
    change(verdict)
    put_json(fair.verdict("mnist_cnn"), verdict)
    with pytest.raises(Unsound, match=named):
        parity_verdict.read(fair, "mnist_cnn")


def test_null_is_no_verdict_and_not_the_lack_of_one(fair) -> None:
    put_json(fair.verdict("mnist_cnn"), None)
    with pytest.raises(Unsound, match="not a record"):
        parity_verdict.read(fair, "mnist_cnn")


def test_what_is_not_proven_has_no_verdict_and_is_no_failure(tmp_path: Path) -> None:
    study = write(tmp_path, seeds=2)
    whole = study.verdict("mnist_cnn").read_text()
    changed(study.verdict("mnist_cnn"), lambda v: v.update(workload="other"))
    found = analysis.analyse(study)
    ((name, reason),) = found.records.excluded
    assert name == "parity/mnist_cnn/verdict.json" and "foreign" in reason
    assert found.comparisons[0].kind == verdicts.NOT_COMPARABLE
    assert headline(found)["word"] == "NOT PROVEN"
    assert "Reach of the parity proof" not in threats_of(found)
    study.verdict("mnist_cnn").write_text(whole)
    changed(study.verdict("mnist_cnn"), lambda v: v["comparisons"].pop("jax-jit"))
    shown = headline(analysis.analyse(study))
    assert shown["word"] == "NOT PROVEN" and "jax-jit is not proven" in shown["text"]


@pytest.mark.parametrize(
    ("traced_on", "ran_on", "proven"),
    [("cpu", "cpu", True), ("NVIDIA H100", "NVIDIA H100", True), ("cpu", "NVIDIA H100", False)],
)
def test_a_proof_on_a_cpu_is_none_of_a_gpu(
    fair: Study, traced_on: str, ran_on: str, proven: bool
) -> None:
    records = load.load(fair)
    device = {name: {"device": traced_on} for name in TWO}
    for run in records.runs:
        run.summary["contract"]["engine"]["device"] = ran_on
    verdict = {**passing_verdict(fair, "mnist_cnn"), "about": device}
    (only,) = analysis.compare_all(dataclasses.replace(records, parity={"mnist_cnn": verdict}))
    said = "parity of jax-jit was traced on cpu and its runs computed on NVIDIA H100"
    assert any(said in problem for problem in only.problems) == (not proven)
    assert (only.kind == verdicts.NOT_COMPARABLE) == (not proven)


def test_the_rungs_that_are_asked_for_are_those_that_parity_climbs() -> None:
    shares = {name: optimizers.Share(*share) for name, share in ABOUT["shares"].items()}
    rule = update.Rule(optimizer=ABOUT["optimizer"], shares=shares)
    arrays = small()
    alone = {k: v for k, v in arrays.items() if "/input/" not in k}  # looked at on one device
    arrays |= {k.replace("float64/", f"{OVER_TWO}/"): v for k, v in alone.items()}
    arrays |= {k.replace("float32/", "bfloat16/"): v for k, v in small().items()}
    climbed = compare.compare(arrays, arrays, rule=rule)
    found = {(rung.precision, rung.name) for rung in climbed if rung.name != "layers"}
    reduced = {("bfloat16", name) for name in parity_verdict.REDUCED}
    assert found == parity_verdict.RUNGS | parity_verdict.OVER_SEVERAL | reduced


def test_only_a_model_of_integers_needs_no_gradient_of_its_input(fair: Study) -> None:
    told = {name: {"absent": {"input": "it reads integers alone"}} for name in TWO}
    every = parity_verdict.wanted(fair, {}, *TWO)
    assert parity_verdict.wanted(fair, told, *TWO) == every - {("float64", "input")}
    assert parity_verdict.wanted(fair, dict([*told.items()][:1]), *TWO) == every


def test_a_trace_sees_neither_input_nor_its_workers(fair: Study) -> None:
    verdict = passing_verdict(fair, "mnist_cnn")
    traced({"input": "native", "workers": 4})(verdict)
    put_json(fair.verdict("mnist_cnn"), verdict)
    assert parity_verdict.read(fair, "mnist_cnn") == verdict


def test_failed_parity_takes_the_verdict_away_from_that_variant_alone(tmp_path: Path) -> None:
    study = write(tmp_path, variants=VARIANTS, seeds=2)
    why = "cause: GELU. JAX: GELU by tanh; PyTorch: GELU by erf"
    verdict = passing_verdict(study, "mnist_cnn", fails="jax-jit")
    verdict["comparisons"]["jax-jit"]["cause"] = cause.told(why)
    failed = next(rung for rung in rungs(verdict) if not rung["passed"])
    failed["first_tolerance"] = 0.0  # of the tensor that failed; others of the rung had more
    put_json(study.verdict("mnist_cnn"), verdict)
    found = analysis.analyse(study)
    kinds = {(c.baseline, c.candidate): c for c in found.comparisons}
    assert kinds["torch-eager", "torch-compile"].kind != verdicts.NOT_COMPARABLE
    broken = kinds["torch-eager", "jax-jit"]
    assert broken.kind == broken.quality_kind == verdicts.NOT_COMPARABLE
    assert "conv1.kernel differs by 5.00e-01, allowed 0.0e+00" in sentences.sentence(broken)
    rows = found.workloads[0].tables["parity"].rows
    shown = {row["precision"]: row["tolerance"] for row in rows if "FAIL" in row["passed"]}
    assert shown == {"float64": 0.0, "float32": 1e-11}
    told = headline(found)
    assert told["word"] == "FAIL" and why in told["text"]
    command = "python -m lockstep port results/planted/study.json --workload mnist_cnn"
    assert f"`{command}` compares the models" in told["text"]


# What was traced, and where -------------------------------------------------------------------


def test_the_proof_says_what_was_traced_and_how_and_how_far_it_reaches(tmp_path: Path) -> None:
    found = analysed(tmp_path, variants=VARIANTS, seeds=2, scales=("1x1", "1x2"))
    shown = headline(found)
    assert shown["word"] == "PASS"
    for words in (
        "on one device and, in float64, on two with the weights of seed 0",
        "50 steps in float64 and 20 in float32",
        "torch-compile and jax-jit compute what torch-eager computes",
        "the first losses of 6 pairs agree",
    ):
        assert words in shown["text"]
    reach = threats_of(found)["Reach of the parity proof"]
    assert "For scale 1x2 it rests on the first losses" in reach
    alone = headline(analysed(tmp_path / "alone", seeds=1))
    assert "traced on one device with the weights of seed 0" in alone["text"]


def test_a_variant_without_a_trace_of_its_own_is_not_called_proven(tmp_path: Path) -> None:
    eager = TWO["torch-eager"]
    variants = {"torch-eager": eager, "torch-loader": {**eager, "input": "native"}}
    times = dict.fromkeys(variants, 0.01)
    found = analysed(tmp_path, variants=variants, seeds=2, step_seconds=times)
    shown = headline(found)
    assert shown["word"] == "NOT TRACED"
    assert "no trace was made of torch-loader: the trace of torch-eager stands" in shown["text"]
    assert "Reach of the parity proof" not in threats_of(found)


def test_of_a_variant_twice_nothing_is_said_to_differ(tmp_path: Path) -> None:
    eager = TWO["torch-eager"]
    variants = {"torch-eager": eager, **TWO, "again": eager}
    found = analysed(
        tmp_path,
        variants=variants,
        seeds=2,
        step_seconds=dict.fromkeys(variants, 0.01),
        edit_loss=lambda run, loss: np.linspace(2.0, 1.0, len(loss)),
    )
    text = headline(found)["text"]
    assert "stands for it, as they differ in the source of the batches at most" in text
    assert text.endswith("the first losses of 6 pairs are equal")


# The first losses, at every scale -------------------------------------------------------------


def test_other_first_losses_at_a_scale_take_its_verdicts_away(tmp_path: Path) -> None:
    """They part after the first step, as where a gradient is averaged twice: no update, no sign."""

    def parting(run: Run, loss: np.ndarray) -> np.ndarray:
        wrong = (run.variant, str(run.scale)) == ("jax-jit", "1x2")
        return loss * np.where(np.arange(len(loss)), 1 + 3e-4 * wrong, 1.0)

    scales = ("1x1", "1x2")
    found = analysed(tmp_path, scales=scales, edit_loss=parting)
    one, two = found.comparisons
    assert one.kind == verdicts.FASTER
    assert two.kind == two.quality_kind == verdicts.NOT_COMPARABLE
    for words in ("parity is not proven at scale 1x2", "5 of 5 pairs", "their first 20 losses"):
        assert words in sentences.sentence(two)
    assert [headline(found, scale)["word"] for scale in scales] == ["PASS", "NOT PROVEN"]


@pytest.mark.parametrize("randomness", ["native", "shared"])
def test_losses_under_masks_of_a_frameworks_own_are_not_held_to_each_other(
    tmp_path: Path, randomness: str
) -> None:
    variants = {**TWO, "jax-jit": {**TWO["jax-jit"], "randomness": randomness}}
    masked = lambda run, loss: loss * (1 + 0.01 * (run.variant == "jax-jit"))  # noqa: E731
    found = analysed(tmp_path, variants=variants, edit_loss=masked)
    (c,) = found.comparisons
    drawn = randomness == "native"
    assert c.kind == (verdicts.FASTER if drawn else verdicts.NOT_COMPARABLE)
    assert (c.first_step is None) == drawn
    assert ("were not compared" in threats_of(found)["Reach of the parity proof"]) == drawn


@pytest.mark.parametrize(
    ("precision", "factor", "fair"),
    [
        ("float64", 1 + 1e-5, False),
        ("float32", 1 + 1e-5, True),
        ("float32", 1.001, False),
        ("bfloat16", 1.01, True),
        ("bfloat16", 1.05, False),
        ("float32", float("nan"), False),
    ],
)
def test_how_much_first_losses_may_differ_depends_on_precision(precision, factor, fair) -> None:
    first = compared(np.array([2.3, 2.2]), np.array([2.3 * factor, 2.2]), precision)
    assert (firststep.problem(first, ("a", "b")) is None) == fair


def compared(a: np.ndarray, b: np.ndarray, precision: str = "float32", **curves: Any) -> Any:
    known = {"workload": "w", "variant": "v", "scale": "1x1", "seed": 0, "folder": Path("v")}
    runs = [load.Record(**known, status="finished", first_losses=losses) for losses in (a, b)]
    return firststep.compare({0: tuple(runs)}, [precision] * 2, curves)


def test_later_losses_are_held_to_what_the_parity_stage_found() -> None:
    a, b = np.full(3, 2.0), np.array([2.0, 2.0, 2.0 * (1 + 5e-4)])
    assert compared(a, b).differ == 0  # nothing is known of later steps
    assert compared(a, b, float32_tolerance=np.full(3, 1e-5)).differ == 1
    assert compared(a, b, float32_tolerance=np.full(3, 1e-4)).differ == 0
    assert compared(np.zeros(20), np.zeros(20)).differ == 0


def test_a_run_whose_first_losses_are_not_known_is_left_out_by_name(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, manifests=False)
    (study.run_folder(study.runs[0]) / "steps.npz").unlink()
    found = analysis.analyse(study)
    (c,) = found.comparisons
    assert c.seeds == [1, 2, 3, 4]
    assert "torch-eager: the losses of its first steps are not known" in c.left_out[0][1]
    assert found.records.excluded[0][0].endswith("seed-0/steps.npz")


# Runs that were begun from another run's checkpoint -------------------------------------------


def test_a_run_begun_elsewhere_is_in_no_verdict_and_no_median_but_named(tmp_path: Path) -> None:
    def begun(run: Run, summary: dict[str, Any]) -> None:
        summary["resumed_from"] = {"identity": "abc" * 20, "step": 0}
        summary["target"]["training_seconds"] = None  # of whom would it be?

    found = analysed(tmp_path, edit=on_jax(begun, seed=2))
    (c,) = found.comparisons
    assert c.seeds == [0, 1, 3, 4] and c.quality.n == 4
    assert "begun at step 0 from a checkpoint of another run (abcabcabcabc)" in c.left_out[0][1]
    tables = found.workloads[0].tables
    assert [row["n"] for row in tables["step-time"].rows] == [5, 4]
    assert [row["n"] for row in tables["time-to-target"].rows] == [5, 4]
    (named,) = [r for r in found.tables["runs"].rows if isinstance(r["reason"], str)]
    assert (named["variant"], named["seed"]) == ("jax-jit", 2)
    assert "Begun elsewhere" in threats_of(found)


def test_a_run_begun_elsewhere_has_no_windows_of_what_came_before(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2, manifests=False)
    folder = study.run_folder(study.runs[0])
    windows, epochs = (pd.read_csv(folder / name) for name in ("windows.csv", "epochs.csv"))
    windows = windows[10:]
    epochs["training_seconds"] = ["nan", *epochs["training_seconds"][1:]]  # another run's clock
    put_csv(folder / "windows.csv", windows)
    put_csv(folder / "epochs.csv", epochs)
    summary = json.loads((folder / "summary.json").read_text())
    summary["steady"] = summary["flops"] = {"absent": "for this test"}
    summary["seconds"]["training"] = windows["seconds"].sum()
    summary["seconds"]["data_wait"] = windows["data_seconds"].sum()
    summary["target"]["training_seconds"] = None
    for origin, status in ((None, load.EXCLUDED), ({"identity": "x", "step": 100}, "finished")):
        put_json(folder / "summary.json", summary | {"resumed_from": origin})
        assert load.load(study).runs[0].status == status
