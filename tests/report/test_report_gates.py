"""What is not proven passes for nothing: of what parity is a proof, and for which runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.report import analysis, firststep, judged, load, page, sentences, verdicts
from lockstep.report.analysis import Analysis
from lockstep.study import Study
from lockstep.study.run import Run
from tests.report.report_studies import TWO, VARIANTS, write

Verdict = dict[str, Any]


def judged_as(root: Path, change: Callable[[Verdict], object], **options: Any) -> Analysis:
    """Write a study, change its parity verdict, and analyse it."""
    study = write(root, seeds=2, **{"variants": TWO, **options})
    path = study.verdict("mnist_cnn")
    verdict = json.loads(path.read_text())
    change(verdict)
    path.write_text(json.dumps(verdict))
    return analysis.analyse(study)


def headline(found: Analysis, scale: str = "1x1") -> dict[str, str]:
    here = [c for c in found.comparisons if c.scale == scale]
    return page.parity(found, "mnist_cnn", scale, here)


def rungs(verdict: Verdict) -> list[dict[str, Any]]:
    return verdict["comparisons"]["jax-jit"]["rungs"]


def twice(verdict: Verdict) -> None:
    rungs(verdict).append(rungs(verdict)[0])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda v: rungs(v).clear(), "jax-jit was not compared on rung float32 batches"),
        (lambda v: rungs(v).pop(4), "not compared on rung float64 gradient"),
        (twice, "has a rung twice"),
        (lambda v: rungs(v)[3].update(worst="nothing"), "nothing was compared"),
        (lambda v: rungs(v)[3].update(value="infinity"), "beyond its tolerance"),
        (lambda v: rungs(v)[3].update(tolerance="infinity"), "beyond its tolerance"),
        (lambda v: rungs(v)[3].update(value=1.0), "beyond its tolerance"),
        (lambda v: v.update(reference="another"), "no trace of its reference"),
    ],
)
def test_a_verdict_that_proves_less_than_all_rungs_proves_nothing(tmp_path, change, named) -> None:
    found = judged_as(tmp_path, change)
    ((_, reason),) = found.records.apart
    assert named in reason
    assert found.comparisons[0].kind == verdicts.NOT_COMPARABLE
    assert headline(found)["word"] == "NOT PROVEN"


def test_the_rungs_that_are_asked_for_are_those_that_parity_climbs() -> None:
    from lockstep.parity import OVER_TWO, compare, update
    from tests.parity.small import ABOUT, small

    rule = update.Rule(optimizer=ABOUT["optimizer"], undecayed=frozenset())
    arrays = small()
    arrays |= {k.replace("float64/", f"{OVER_TWO}/"): v for k, v in arrays.items()}
    arrays |= {k.replace("float32/", "bfloat16/"): v for k, v in small().items()}
    rungs = compare.compare(arrays, arrays, rule=rule)
    found = {(rung.precision, rung.name) for rung in rungs if rung.name != "layers"}
    reduced = {("bfloat16", name) for name in judged.REDUCED}
    assert found == judged.RUNGS | judged.OVER_SEVERAL | reduced


def about(study: Study, **changes: Any) -> dict[str, Any]:
    told = {"variant": dict(study.variant("jax-jit")) | changes.pop("variant", {}), "seed": 0}
    return {"jax-jit": told | changes}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"variant": {"mode": "eager"}}, "other settings than jax-jit now has"),
        ({"seed": 99}, "made with seed 99"),
        ({"variant": {}}, None),
        ({"variant": {"input": "native", "workers": 4}}, None),  # a trace sees neither
    ],
)
def test_a_verdict_of_other_settings_or_another_seed_proves_nothing(tmp_path, changes, named):
    plain = write(tmp_path / "plain", variants=TWO, seeds=1)
    found = judged_as(tmp_path, lambda v: v.update(about=about(plain, **changes)))
    reasons = [reason for _, reason in found.records.apart]
    assert any(named in reason for reason in reasons) if named else not reasons


# What was traced, and where -------------------------------------------------------------------


def test_the_proof_says_what_was_traced_and_how(tmp_path: Path) -> None:
    said = headline(analysis.analyse(write(tmp_path, seeds=2)))
    assert said["word"] == "PASS"
    assert "on one device with the weights of seed 0" in said["text"]
    assert "50 steps in float64 and 20 in float32" in said["text"]
    assert "torch-compile and jax-jit compute what torch-eager computes" in said["text"]
    assert "the first losses of 6 pairs agree" in said["text"]


def test_a_variant_without_a_trace_of_its_own_is_not_said_to_be_proven(tmp_path: Path) -> None:
    loader = {**TWO["torch-eager"], "input": "native"}
    variants = {"torch-eager": TWO["torch-eager"], "torch-loader": loader}
    times = dict.fromkeys(variants, 0.01)
    found = analysis.analyse(write(tmp_path, variants=variants, seeds=2, step_seconds=times))
    said = headline(found)
    assert said["word"] == "NOT TRACED"
    assert "torch-loader has no trace of its own: it differs from torch-eager" in said["text"]
    (threat,) = [t for t in found.threats if t.name == "Reach of the parity proof"] or [None]
    assert threat is None  # nothing was proven that could fall short


def test_the_reach_of_the_proof_names_scales_and_precisions(tmp_path: Path) -> None:
    variants = {**TWO, "jax-bf16": {**TWO["jax-jit"], "precision": "bfloat16"}}
    times = dict.fromkeys(variants, 0.01)
    scales = ("1x1", "1x2")
    study = write(tmp_path, variants=variants, seeds=2, step_seconds=times, scales=scales)
    (threat,) = [
        t for t in analysis.analyse(study).threats if t.name == "Reach of the parity proof"
    ]
    assert "For scale 1x2 it rests on the first losses" in threat.what


def test_no_threat_says_that_parity_was_proven_where_it_was_not(tmp_path: Path) -> None:
    found = analysis.analyse(write(tmp_path, variants=TWO, seeds=2, parity=False))
    assert "Parity was" not in " ".join(t.what for t in found.threats)


def test_what_is_not_proven_is_not_called_a_failure(tmp_path: Path) -> None:
    found = judged_as(tmp_path, lambda v: v["comparisons"].pop("jax-jit"), variants=VARIANTS)
    said = headline(found)
    assert said["word"] == "NOT PROVEN" and "jax-jit is not proven" in said["text"]


# The first step's loss, at every scale --------------------------------------------------------


def at_two(run: Run, factor: float) -> float:
    return factor if (run.variant, str(run.scale)) == ("jax-jit", "1x2") else 1.0


def test_other_first_losses_at_a_scale_take_its_verdicts_away(tmp_path: Path) -> None:
    study = write(
        tmp_path,
        variants=TWO,
        scales=("1x1", "1x2"),
        edit_loss=lambda run, loss: at_two(run, 3.0) * loss,
    )
    found = analysis.analyse(study)
    one, two = found.comparisons
    assert one.kind == verdicts.FASTER
    assert two.kind == two.quality_kind == verdicts.NOT_COMPARABLE
    assert "parity is not proven at scale 1x2" in sentences.sentence(two)
    assert "5 of 5 pairs of runs differ" in sentences.sentence(two)
    assert headline(found, "1x1")["word"] == "PASS"
    assert headline(found, "1x2")["word"] == "NOT PROVEN"


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
def test_how_far_first_losses_may_be_apart_depends_on_precision(
    tmp_path, precision, factor, fair
) -> None:
    def shift(run: Run, loss: np.ndarray) -> np.ndarray:
        first = np.r_[2.3 * (factor if run.variant == "jax-jit" else 1.0), loss[1:]]
        return first if np.isfinite(factor) else np.where(np.arange(len(loss)), loss, first)

    variants = {name: {**v, "precision": precision} for name, v in TWO.items()}
    study = write(tmp_path, variants=variants, seeds=2)
    for run in study.runs:
        path = study.run_folder(run) / "steps.npz"
        with np.load(path) as stored:
            arrays = dict(stored)
        np.savez(path, **{**arrays, "loss": shift(run, arrays["loss"])})
    for name in study.blocks:
        study.manifest(name).unlink()
    (c,) = analysis.analyse(study).comparisons
    assert not c.differences or all(d.level != "not comparable" for d in c.differences)
    assert (c.kind != verdicts.NOT_COMPARABLE) == fair


def test_losses_that_part_after_the_first_step_take_a_verdict_away(tmp_path: Path) -> None:
    """As where a gradient is averaged twice: before an update nothing shows it."""

    def parting(run: Run, loss: np.ndarray) -> np.ndarray:
        return loss * np.where(np.arange(len(loss)), 1 + 3e-4 * (run.variant == "jax-jit"), 1.0)

    (c,) = analysis.analyse(write(tmp_path, variants=TWO, seeds=2, edit_loss=parting)).comparisons
    assert c.kind == verdicts.NOT_COMPARABLE
    assert "of jax-jit is" in sentences.sentence(c) and "first 20 losses" in sentences.sentence(c)


def test_input_of_its_own_is_exempt_from_the_first_loss(tmp_path: Path) -> None:
    variants = {**TWO, "jax-jit": {**TWO["jax-jit"], "input": "native"}}
    study = write(
        tmp_path,
        variants=variants,
        edit_loss=lambda run, loss: loss * (2.0 if run.variant == "jax-jit" else 1.0),
    )
    (c,) = analysis.analyse(study).comparisons
    assert c.first_step is None and c.kind == verdicts.FASTER


def test_a_run_whose_first_loss_is_not_known_is_left_out_by_name(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, manifests=False)
    (study.run_folder(study.runs[0]) / "steps.npz").unlink()
    (c,) = analysis.analyse(study).comparisons
    assert c.seeds == [1, 2, 3, 4]
    assert "torch-eager: the losses of its first steps are not known" in c.left_out[0][1]


def test_losses_of_zero_are_equal() -> None:
    facts = {"variant.input": "shared", "variant.precision": "float32"}
    run = load.Record(
        workload="w",
        variant="v",
        scale="1x1",
        seed=0,
        folder=Path("v"),
        status="finished",
        first_losses=np.zeros(20),
    )
    first = firststep.compare({0: run}, {0: run}, {0: (facts, facts)})
    assert first is not None and first.apart == 0


# Runs that were begun from another run's checkpoint -------------------------------------------


def begun_elsewhere(run: Run, summary: dict[str, Any]) -> None:
    if (run.variant, run.seed) == ("jax-jit", 2):
        summary["resumed_from"] = {"identity": "abc" * 20, "step": 0}
        summary["target"]["training_seconds"] = None  # of whom would it be?


def test_a_run_begun_elsewhere_is_in_no_verdict_and_no_median_but_named(tmp_path: Path) -> None:
    found = analysis.analyse(write(tmp_path, variants=TWO, edit=begun_elsewhere))
    (c,) = found.comparisons
    assert c.seeds == [0, 1, 3, 4] and c.quality is not None and c.quality.n == 4
    assert "begun at step 0 from a checkpoint of another run (abcabcabcabc)" in c.left_out[0][1]
    row = found.workloads[0].tables["step-time"].rows[1]
    assert (row["variant"], row["n"]) == ("jax-jit", 4)
    assert [r["n"] for r in found.workloads[0].tables["target"].rows] == [5, 4]
    (named,) = [r for r in found.tables["runs"].rows if isinstance(r["reason"], str)]
    assert (named["variant"], named["seed"]) == ("jax-jit", 2)
    assert "Begun elsewhere" in {t.name for t in found.threats}


def test_a_run_begun_elsewhere_has_no_windows_of_what_came_before(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, seeds=2, manifests=False)
    folder = study.run_folder(study.runs[0])
    header, *rows = (folder / "windows.csv").read_text().splitlines(keepends=True)
    (folder / "windows.csv").write_text(header + "".join(rows[10:]))
    summary = json.loads((folder / "summary.json").read_text())
    summary["steady"] = summary["flops"] = {"absent": "for this test"}
    spent = [[float(row.split(",")[k]) for row in rows[10:]] for k in (3, 4)]
    summary["seconds"] |= {"training": sum(spent[0]), "data_wait": sum(spent[1])}
    summary["target"]["training_seconds"] = None
    (folder / "summary.json").write_text(json.dumps(summary))
    assert load.load(study).runs[0].status == load.APART
    summary["resumed_from"] = {"identity": "x", "step": 100}
    epochs = (folder / "epochs.csv").read_text().splitlines(keepends=True)
    epochs[1] = f"{epochs[1].rpartition(',')[0]},nan\n"  # another run's clock
    (folder / "epochs.csv").write_text("".join(epochs))
    (folder / "summary.json").write_text(json.dumps(summary))
    assert load.load(study).runs[0].status == load.FINISHED
