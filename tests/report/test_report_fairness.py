"""Planted unfairness is found and named, and touches the verdict as it should."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.datasets import checksum
from lockstep.report import analysis, load, sentences, verdicts
from lockstep.study.run import Run
from tests.report.planted import comparison, on_jax, set_at, text_of
from tests.report.report_studies import TWO, VARIANTS, Edit, write


def test_batches_of_one_scale_that_are_not_those_of_another(tmp_path: Path) -> None:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        if str(run.scale) == "1x2":
            summary["batches"] = "f" * 64

    study = write(tmp_path, variants=TWO, scales=("1x1", "1x2"), edit=edit)
    comparisons = analysis.analyse(study).comparisons
    assert [c.kind for c in comparisons] == [verdicts.NOT_COMPARABLE] * 2
    assert "did not read the same batches at every scale" in sentences.sentence(comparisons[0])


def test_a_fair_comparison_has_no_flag(tmp_path: Path) -> None:
    c = comparison(tmp_path)
    assert c.flags == [] and not c.problems and not c.timing_problems
    assert all(d.level == "declared" for d in c.differences)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("contract.engine.matmul_precision", "tensorfloat32", "precision.products"),
        ("contract.engine.matmul_precision", None, "precision.products"),
        ("contract.engine.compute_dtype", "bfloat16", "precision.computation"),
        ("batches", "f" * 64, "batches consumed"),
        ("weights.initial", "f" * 64, "initial weights"),
        ("dataset.content", "f" * 64, "dataset"),
        ("contract.topology.local_batch", 32, "topology"),
    ],
)
def test_what_could_change_the_result_takes_all_verdicts_away(tmp_path, path, value, named) -> None:
    c = comparison(tmp_path, on_jax(set_at(path, value)))
    assert c.kind == c.quality_kind == verdicts.NOT_COMPARABLE
    assert named in text_of(c)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("contract.topology.threads", 4, "CPU threads"),
        ("contract.host.cpu", "Xeon", "CPU"),
        ("contract.host.cores", 8, "CPU cores"),
        ("contract.host.gpus", [{"name": "A100", "uuid": "x", "driver": "580.1"}], "GPU model"),
        ("contract.engine.device", "cpu", "kind of device"),
        ("contract.host.node", "slow", "look like a slower variant"),
    ],
)
def test_what_could_change_the_time_takes_the_verdict_on_time_away(tmp_path, path, value, named):
    c = comparison(tmp_path, on_jax(set_at(path, value)))
    assert c.kind == verdicts.NOT_COMPARABLE
    assert c.quality_kind == verdicts.EQUIVALENT
    assert named in text_of(c)
    assert "not comparable in time" in sentences.sentence(c)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("contract.engine.platform_version", "PJRT C API\ncuda 12090", "CUDA generation"),
        ("contract.engine.cudnn", "9.1.0", "cuDNN"),
        ("contract.engine.nccl", "2.21.5", "NCCL"),
        ("contract.determined_by.environment", {"numpy": "1.26"}, "environment.numpy"),
        ("contract.host.gpus", [{"name": "H100", "uuid": "x", "driver": "550"}], "GPU driver"),
        ("contract.topology.window_steps", 25, "steps of a window"),
        ("contract.host.never_heard_of", "this", "host.never_heard_of"),
        ("contract.something", {"new": 1}, "something.new"),
    ],
)
def test_other_undeclared_differences_stand_beside_the_verdict(
    tmp_path, path, value, named
) -> None:
    c = comparison(tmp_path, on_jax(set_at(path, value)))
    assert c.kind == verdicts.FASTER
    assert named in " ".join(f"{d.label} {d.fact}" for d in c.flags)


def test_a_declared_precision_is_what_is_compared(tmp_path: Path) -> None:
    variants = {**TWO, "jax-jit": {**TWO["jax-jit"], "precision": "tf32"}}
    study = write(
        tmp_path,
        variants=variants,
        edit=on_jax(set_at("contract.engine.matmul_precision", "tensorfloat32")),
    )
    (c,) = analysis.analyse(study).comparisons
    assert c.kind == verdicts.FASTER and c.flags == []


def test_tf32_on_both_sides_is_found_where_no_difference_shows_it(tmp_path: Path) -> None:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        engine = summary["contract"]["engine"]
        name = "matmul_float32" if run.variant == "torch-eager" else "matmul_precision"
        engine[name] = "tf32" if run.variant == "torch-eager" else "tensorfloat32"

    c = comparison(tmp_path, edit)
    assert c.kind == verdicts.NOT_COMPARABLE
    assert "declares float32 but computed products in tf32" in sentences.sentence(c)


def test_settings_for_float32_do_not_matter_where_bfloat16_is_computed(tmp_path: Path) -> None:
    variants = {name: {**variant, "precision": "bfloat16"} for name, variant in TWO.items()}

    def edit(run: Run, summary: dict[str, Any]) -> None:
        engine = summary["contract"]["engine"]
        engine["compute_dtype"] = "bfloat16"
        if run.variant == "jax-jit":
            engine["matmul_precision"] = "default"

    (c,) = analysis.analyse(write(tmp_path, variants=variants, edit=edit)).comparisons
    assert c.kind == verdicts.FASTER and c.flags == []


@pytest.mark.parametrize("precision", ["bfloat16", "float64", "tf32", "float32"])
def test_a_declared_precision_is_checked_against_what_was_computed(tmp_path, precision) -> None:
    variants = {name: {**variant, "precision": precision} for name, variant in TWO.items()}
    wrong = "float32" if precision in ("bfloat16", "float64") else "bfloat16"

    def edit(run: Run, summary: dict[str, Any]) -> None:
        summary["contract"]["engine"]["compute_dtype"] = wrong

    (c,) = analysis.analyse(write(tmp_path, variants=variants, edit=edit, seeds=2)).comparisons
    assert c.kind == verdicts.NOT_COMPARABLE
    assert f"torch-eager declares {precision} but computed" in text_of(c) + " ".join(c.problems)


def test_a_declared_precision_of_one_side_is_checked_too(tmp_path: Path) -> None:
    variants = {**TWO, "jax-jit": {**TWO["jax-jit"], "precision": "bfloat16"}}
    edit = on_jax(set_at("contract.engine.compute_dtype", "float32"))
    (c,) = analysis.analyse(write(tmp_path, variants=variants, edit=edit, seeds=2)).comparisons
    assert c.problems == ["jax-jit declares bfloat16 but computed in float32"]


def test_a_precision_that_no_engine_tells_is_not_taken_for_granted(tmp_path: Path) -> None:
    c = comparison(tmp_path, on_jax(set_at("contract.engine.compute_dtype", None)), seeds=2)
    assert "jax-jit declares float32 but does not say what it computed in" in c.problems


# One framework --------------------------------------------------------------------------------

TORCH = {name: VARIANTS[name] for name in ("torch-eager", "torch-compile")}


@pytest.mark.parametrize(
    ("path", "value", "level"),
    [
        ("contract.engine.torch", "2.14.0", "flagged"),
        ("contract.engine.threads", 7, "flagged"),
        ("contract.engine.deterministic", True, "flagged"),
        ("contract.engine.never_heard_of", 1, "flagged"),
        ("contract.engine.compiled", "step", "declared"),
        ("contract.engine.evaluation", "compile", "declared"),
    ],
)
def test_within_a_framework_only_what_follows_from_the_mode_is_declared(
    tmp_path, path, value, level
) -> None:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        engine = {"threads": 2, "deterministic": False, "compiled": "no", "evaluation": "eager"}
        summary["contract"]["engine"] |= engine
        if run.variant == "torch-compile":
            set_at(path, value)(run, summary)

    (c,) = analysis.analyse(write(tmp_path, variants=TORCH, edit=edit, seeds=2)).comparisons
    name = path.removeprefix("contract.")
    assert {d.fact: d.level for d in c.differences}[name] == level


# Containers -----------------------------------------------------------------------------------


def in_images(names: Any) -> Edit:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        image = names(run)
        facts = {k: f"{k} of {image}" for k in ("identity", "name", "root_sha256", "sif_sha256")}
        summary["contract"]["host"]["image"] = facts
        summary["contract"]["determined_by"]["environment"] = {"image": facts["identity"]}

    return edit


def test_each_framework_has_its_own_image_which_is_no_flag(tmp_path: Path) -> None:
    c = comparison(tmp_path, in_images(lambda run: run.variant[:3]), seeds=2)
    assert c.kind == verdicts.FASTER and c.flags == []
    assert {d.level for d in c.differences if d.fact.startswith("image.")} == {"declared"}


def test_two_images_of_one_framework_are_flagged(tmp_path: Path) -> None:
    variants = {name: VARIANTS[name] for name in ("torch-eager", "torch-compile")}
    study = write(tmp_path, variants=variants, edit=in_images(lambda run: run.variant), seeds=2)
    (c,) = analysis.analyse(study).comparisons
    assert {d.fact for d in c.flags} >= {"image.identity", "image.sif_sha256"}
    assert not any(d.fact == "environment.image" for d in c.flags)


def test_native_input_may_have_other_batches_because_it_is_declared(tmp_path: Path) -> None:
    variants = {**TWO, "jax-jit": {**TWO["jax-jit"], "input": "native"}}
    study = write(tmp_path, variants=variants, edit=on_jax(set_at("batches", "f" * 64)))
    (c,) = analysis.analyse(study).comparisons
    assert c.kind == verdicts.FASTER
    assert {d.fact: d.level for d in c.differences}["batches"] == "declared"


def test_a_swapped_label_is_found_and_named(tmp_path: Path) -> None:
    """Two examples of one batch have each other's label, on JAX's side of one seed."""
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)
    labels = np.array([3, 1, 4, 1])
    right, swapped = (
        checksum.checksum(images, given, len(given)) for given in (labels, labels[[1, 0, 2, 3]])
    )
    assert right != swapped

    def swap(run: Run, summary: dict[str, Any]) -> None:
        if run.seed == 1:
            summary["batches"] = checksum.chain(np.array([swapped], np.uint32))

    c = comparison(tmp_path, on_jax(swap), seeds=3)
    assert c.kind == c.quality_kind == verdicts.NOT_COMPARABLE
    assert "batches consumed (batches) differs in 1 of 3 pairs" in text_of(c)
    assert "other examples, labels or order" in text_of(c)


def test_a_missing_seed_is_left_out_by_name(tmp_path: Path) -> None:
    c = comparison(tmp_path, skip=lambda run: run.variant == "jax-jit" and run.seed == 3)
    assert c.seeds == [0, 1, 2, 4]
    assert c.left_out == [(3, "jax-jit missing: never started")]
    assert c.step_time.n == 4


def test_a_failed_seed_is_left_out_and_its_loss_is_a_threat(tmp_path: Path) -> None:
    def fail(run: Run, summary: dict[str, Any]) -> None:
        if run.variant == "jax-jit" and run.seed == 3:
            summary |= {"status": "failed", "reason": "the loss is nan at step 149"}

    study = write(tmp_path, variants=TWO, edit=fail)
    found = analysis.analyse(study)
    assert found.comparisons[0].left_out == [(3, "jax-jit failed: the loss is nan at step 149")]
    assert "Lost runs" in {t.name for t in found.threats}


def test_a_record_changed_after_its_block_was_finished_is_set_apart(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO)
    path = study.run_folder(study.runs[0]) / "summary.json"
    summary = json.loads(path.read_text())
    summary["steady"]["step_seconds"]["median"] /= 2
    path.write_text(json.dumps(summary))
    records = load.load(study)
    assert records.runs[0].status == load.APART
    assert "sha256" in records.runs[0].reason


def test_runs_that_did_not_share_a_job_are_a_threat(tmp_path: Path) -> None:
    study = write(tmp_path, variants=TWO, blocks={"paired": False})
    assert "Unpaired" in {t.name for t in analysis.analyse(study).threats}
    paired = write(
        tmp_path / "paired",
        variants=TWO,
        edit=on_jax(set_at("contract.host.job", {"id": "other"})),
    )
    (threat,) = [t for t in analysis.analyse(paired).threats if t.name == "Unpaired"]
    assert "5 of 5 pairs" in threat.what


def test_threats_are_what_was_measured(tmp_path: Path) -> None:
    """A study on CPUs of three seeds, with another cuDNN, steps that vary and an unpaired job."""

    def edit(run: Run, summary: dict[str, Any]) -> None:
        engine = summary["contract"]["engine"]
        engine |= {"device": "cpu", "cudnn": "9.1.0" if run.variant == "jax-jit" else 92600}
        summary["contract"]["host"]["gpus"] = []

    study = write(tmp_path, variants=TWO, seeds=3, edit=edit, spread=0.5)
    threats = {t.name: t for t in analysis.analyse(study).threats}
    assert {"CPU only", "Few seeds", "Noisy step times", "Several nodes"} <= threats.keys()
    assert "the node is shared" in threats["Noisy step times"].what
    flagged = threats["Undeclared cuDNN"]
    assert flagged.where == "mnist_cnn at 1x1"
    assert "9.26.0 against 9.1.0" in flagged.what and "jax-jit and torch-eager" in flagged.what


def test_a_flag_stands_beside_its_verdict_wherever_that_is_told(tmp_path: Path) -> None:
    edit = on_jax(set_at("contract.engine.nccl", "2.21.5"))
    found = analysis.analyse(write(tmp_path, variants=TWO, edit=edit, seeds=2))
    (row,) = found.tables["comparisons"].rows
    assert row["beside"] == "NCCL (nccl)"
    (told,) = analysis.as_json(found)["verdicts"]
    assert "2.30.7 against 2.21.5" in told["flags"][0]


def test_why_there_is_no_verdict_stands_beside_it(tmp_path: Path) -> None:
    found = analysis.analyse(write(tmp_path, variants=TWO, seeds=2, parity=False))
    assert "not proven" in found.tables["comparisons"].rows[0]["beside"]
