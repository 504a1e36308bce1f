"""Planted unfairness is found and named, and touches the verdict as it should."""

from pathlib import Path
from typing import Any

import pytest

from lockstep.report import analysis, sentences, verdicts
from lockstep.study.run import Run, Scale
from tests.report.planted import comparison, on, on_jax, set_at, text_of, threats_of
from tests.report.report_studies import TWO, VARIANTS, Edit, write

TORCH = {name: VARIANTS[name] for name in ("torch-eager", "torch-compile")}
JAX = "contract.engine."


def jax_with(**settings: Any) -> dict[str, Any]:
    return {**TWO, "jax-jit": {**TWO["jax-jit"], **settings}}


def test_a_fair_comparison_has_no_flag(tmp_path: Path) -> None:
    c = comparison(tmp_path)
    assert c.flags == [] and not c.problems and not c.timing_problems
    assert all(d.level == "declared" for d in c.differences)


NOTHING = (verdicts.NOT_COMPARABLE, verdicts.NOT_COMPARABLE)
NO_TIME = (verdicts.NOT_COMPARABLE, verdicts.EQUIVALENT)
FLAGGED = (verdicts.FASTER, verdicts.EQUIVALENT)
GPU = {"name": "H100", "uuid": "x", "driver": "580.1"}


@pytest.mark.parametrize(
    ("path", "value", "named", "kinds"),
    [
        (f"{JAX}matmul_precision", "tensorfloat32", "precision.products", NOTHING),
        (f"{JAX}matmul_precision", None, "precision.products", NOTHING),
        (f"{JAX}compute_dtype", "bfloat16", "precision.computation", NOTHING),
        ("batches", "f" * 64, "batches consumed", NOTHING),
        ("weights.initial", "f" * 64, "initial weights", NOTHING),
        ("dataset.content", "f" * 64, "dataset", NOTHING),
        ("contract.topology.local_batch", 32, "topology", NOTHING),
        ("contract.topology.threads", 4, "CPU threads", NO_TIME),
        ("contract.host.cpu", "Xeon", "CPU", NO_TIME),
        ("contract.host.cores", 8, "CPU cores", NO_TIME),
        ("contract.host.gpus", [GPU | {"name": "A100"}], "GPU model", NO_TIME),
        (f"{JAX}device", "cpu", "kind of device", NO_TIME),
        (f"{JAX}platform_version", "PJRT C API\ncuda 12090", "CUDA generation", FLAGGED),
        (f"{JAX}cudnn", "9.1.0", "cuDNN", FLAGGED),
        (f"{JAX}nccl", "2.21.5", "NCCL", FLAGGED),
        ("contract.determined_by.environment", {"numpy": "1.26"}, "environment.numpy", FLAGGED),
        ("contract.host.gpus", [GPU | {"driver": "550"}], "GPU driver", FLAGGED),
        ("contract.topology.window_steps", 25, "steps of a window", FLAGGED),
        ("contract.host.never_heard_of", "this", "host.never_heard_of", FLAGGED),
        ("contract.something", {"new": 1}, "something.new", FLAGGED),
    ],
)
def test_an_undeclared_difference_takes_a_verdict_away_or_stands_beside_it(
    tmp_path, path, value, named, kinds
) -> None:
    c = comparison(tmp_path, on_jax(set_at(path, value)))
    assert (c.kind, c.quality_kind) == kinds
    found = c.flags if kinds == FLAGGED else c.differences
    assert named in " ".join(f"{d.label} {d.fact}" for d in found)
    assert ("not comparable in time" in sentences.sentence(c)) == (kinds == NO_TIME)


def test_a_variable_that_is_recorded_twice_is_flagged_once(tmp_path: Path) -> None:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        value = "passive" if run.variant == "jax-jit" else "active"
        summary["contract"]["engine"]["settings"] = {"OMP_WAIT_POLICY": value, "XLA_FLAGS": "-a"}
        summary["contract"]["topology"]["environment"] = {"OMP_WAIT_POLICY": value}

    c = comparison(tmp_path, edit, seeds=2)
    assert [d.fact for d in c.flags] == ["topology.environment.OMP_WAIT_POLICY"]


def test_batches_of_one_scale_that_are_not_those_of_another(tmp_path: Path) -> None:
    edit = on(set_at("batches", "f" * 64), scale=Scale.parse("1x2"))
    study = write(tmp_path, variants=TWO, scales=("1x1", "1x2"), edit=edit)
    comparisons = analysis.analyse(study).comparisons
    assert [c.kind for c in comparisons] == [verdicts.NOT_COMPARABLE] * 2
    assert "did not read the same batches at every scale" in sentences.sentence(comparisons[0])


def test_other_batches_of_one_seed_are_found_and_named(tmp_path: Path) -> None:
    c = comparison(tmp_path, on_jax(set_at("batches", "f" * 64), seed=1), seeds=3)
    assert c.kind == c.quality_kind == verdicts.NOT_COMPARABLE
    assert "batches consumed (batches) differs in 1 of 3 pairs" in text_of(c)


# Precision ------------------------------------------------------------------------------------


def reduced(run: Run, summary: dict[str, Any]) -> None:
    """Compute in bfloat16, where settings for float32 do not matter."""
    engine = summary["contract"]["engine"]
    engine |= {"compute_dtype": "bfloat16"}
    engine |= {"matmul_precision": "default"} if run.variant == "jax-jit" else {}


@pytest.mark.parametrize(
    ("torch", "jax", "edit"),
    [
        ("float32", "tf32", on_jax(set_at(f"{JAX}matmul_precision", "tensorfloat32"))),
        ("bfloat16", "bfloat16", reduced),
    ],
)
def test_a_declared_precision_is_what_is_compared(tmp_path, torch, jax, edit) -> None:
    precisions = {"torch-eager": torch, "jax-jit": jax}
    variants = {name: {**TWO[name], "precision": p} for name, p in precisions.items()}
    c = comparison(tmp_path, edit, variants=variants)
    assert c.kind == verdicts.FASTER and c.flags == []


def test_tf32_on_both_sides_is_found_where_no_difference_shows_it(tmp_path: Path) -> None:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        torch = run.variant == "torch-eager"
        name, value = ("matmul_float32", "tf32") if torch else ("matmul_precision", "tensorfloat32")
        summary["contract"]["engine"][name] = value

    said = sentences.sentence(comparison(tmp_path, edit, seeds=2))
    assert "declares float32 but computed products in tf32" in said


@pytest.mark.parametrize(
    ("precision", "computed"),
    [
        ("bfloat16", "float32"),
        ("float64", "float32"),
        ("tf32", "bfloat16"),
        ("float32", "bfloat16"),
        ("float32", None),
    ],
)
def test_a_declared_precision_is_checked_against_what_was_computed(tmp_path, precision, computed):
    """Of one side too, where it is a difference that both declare."""
    edit = on_jax(set_at(f"{JAX}compute_dtype", computed))
    c = comparison(tmp_path, edit, variants=jax_with(precision=precision), seeds=2)
    did = f"computed in {computed}" if computed else "does not say what it computed in"
    if computed == "bfloat16":
        did = "computed products in bfloat16"
    assert any(f"jax-jit declares {precision} but {did}" in p for p in c.problems)


# One framework, images, input -----------------------------------------------------------------


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

    c = comparison(tmp_path, edit, variants=TORCH, seeds=2)
    assert {d.fact: d.level for d in c.differences}[path.removeprefix("contract.")] == level


def in_images(names: Any) -> Edit:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        facts = {k: f"{k} of {names(run)}" for k in ("identity", "name", "sif_sha256")}
        summary["contract"]["host"]["image"] = facts
        summary["contract"]["determined_by"]["environment"] = {"image": facts["identity"]}

    return edit


def test_images_are_declared_between_frameworks_and_flagged_within_one(tmp_path: Path) -> None:
    c = comparison(tmp_path / "a", in_images(lambda run: run.variant[:3]), seeds=2)
    assert c.kind == verdicts.FASTER and c.flags == []
    assert {d.level for d in c.differences if d.fact.startswith("image.")} == {"declared"}
    c = comparison(tmp_path / "b", in_images(lambda run: run.variant), variants=TORCH, seeds=2)
    facts = {d.fact for d in c.flags}
    assert facts >= {"image.identity", "image.sif_sha256"} and "environment.image" not in facts


def test_input_of_its_own_may_have_other_batches_and_first_losses(tmp_path: Path) -> None:
    twice = lambda run, loss: loss * (2.0 if run.variant == "jax-jit" else 1.0)  # noqa: E731
    edit = on_jax(set_at("batches", "f" * 64))
    c = comparison(tmp_path, edit, variants=jax_with(input="native"), edit_loss=twice)
    assert c.kind == verdicts.FASTER and c.first_step is None
    assert {d.fact: d.level for d in c.differences}["batches"] == "declared"


# Threats --------------------------------------------------------------------------------------


def threats(root: Path, **options: Any) -> dict[str, str]:
    return threats_of(analysis.analyse(write(root, **{"variants": TWO, **options})))


def test_runs_that_did_not_share_a_job_are_a_threat(tmp_path: Path) -> None:
    assert "Unpaired" in threats(tmp_path, blocks={"paired": False})
    edit = on_jax(set_at("contract.host.job", {"id": "other"}))
    assert "5 of 5 pairs" in threats(tmp_path / "paired", edit=edit)["Unpaired"]


def test_threats_are_what_was_measured(tmp_path: Path) -> None:
    """A study on CPUs of three seeds over two nodes each, with steps that vary."""

    def edit(run: Run, summary: dict[str, Any]) -> None:
        summary["contract"]["engine"]["device"] = "cpu"
        host = summary["contract"]["host"]
        host |= {"gpus": [], "nodes": [{**host, "node": name} for name in ("n1", "n2")]}

    found = threats(tmp_path, seeds=3, edit=edit, spread=0.5)
    assert {"CPU only", "Few seeds", "Noisy step times"} <= found.keys()
    assert "the node is shared" in found["Noisy step times"]
    assert "on 2 nodes" in found["Several nodes"]


def test_what_takes_a_verdict_away_or_is_flagged_stands_beside_it_everywhere(tmp_path) -> None:
    edit = on_jax(set_at(f"{JAX}nccl", "2.21.5"))
    found = analysis.analyse(write(tmp_path / "a", variants=TWO, edit=edit, seeds=2))
    assert found.tables["comparisons"].rows[0]["beside"] == "NCCL (nccl)"
    assert "2.30.7 against 2.21.5" in analysis.as_json(found)["verdicts"][0]["flags"][0]
    unproven = analysis.analyse(write(tmp_path / "b", variants=TWO, seeds=2, parity=False))
    assert "not proven" in unproven.tables["comparisons"].rows[0]["beside"]
