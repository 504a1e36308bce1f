"""Planted unfairness is found and named, and touches the verdict as it should."""

from pathlib import Path
from typing import Any

import pytest

from lockstep.report import analysis, comparability, sentences, verdicts
from lockstep.study.run import Run, Scale
from tests.report.planted import analysed, comparison, on, on_jax, set_at, threats_of
from tests.report.report_studies import TWO, VARIANTS, Edit

TORCH = {name: VARIANTS[name] for name in ("torch-eager", "torch-compile")}
JAX = "contract.engine."


def jax_with(**settings: Any) -> dict[str, Any]:
    return {**TWO, "jax-jit": {**TWO["jax-jit"], **settings}}


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


@pytest.mark.parametrize(("threads", "kinds"), [(2, FLAGGED), (1, NO_TIME)])
def test_a_framework_that_leaves_cpus_of_its_process_idle(tmp_path, threads, kinds) -> None:
    edit = on(set_at("contract.engine.threads", threads), variant="torch-eager")
    c = comparison(tmp_path, edit)
    assert (c.kind, c.quality_kind) == kinds
    said = ["torch-eager computed with 1 thread on the 2 CPUs of its process"]
    assert list(c.timing_problems) == (said if threads == 1 else [])


def test_a_variable_that_is_recorded_twice_is_flagged_once(tmp_path: Path) -> None:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        value = "passive" if run.variant == "jax-jit" else "active"
        summary["contract"]["engine"]["settings"] = {"OMP_WAIT_POLICY": value, "XLA_FLAGS": "-a"}
        summary["contract"]["topology"]["environment"] = {"OMP_WAIT_POLICY": value}

    c = comparison(tmp_path, edit, seeds=2)
    assert [d.fact for d in c.flags] == ["topology.environment.OMP_WAIT_POLICY"]


def test_batches_of_one_scale_that_are_not_those_of_another(tmp_path: Path) -> None:
    edit = on(set_at("batches", "f" * 64), scale=Scale.parse("1x2"))
    comparisons = analysed(tmp_path, scales=("1x1", "1x2"), edit=edit).comparisons
    assert [c.kind for c in comparisons] == [verdicts.NOT_COMPARABLE] * 2
    assert "did not read the same batches at every scale" in sentences.sentence(comparisons[0])


# Precision ------------------------------------------------------------------------------------


def reduced(run: Run, summary: dict[str, Any]) -> None:
    """Compute in bfloat16, where settings for float32 do not matter."""
    summary["contract"]["engine"]["compute_dtype"] = "bfloat16"
    on_jax(set_at(f"{JAX}matmul_precision", "default"))(run, summary)


@pytest.mark.parametrize(
    ("torch", "jax", "edit"),
    [
        ("float32", "tf32", on_jax(set_at(f"{JAX}matmul_precision", "tensorfloat32"))),
        ("bfloat16", "bfloat16", reduced),
    ],
)
def test_a_declared_precision_is_what_is_compared(tmp_path, torch, jax, edit) -> None:
    variants = jax_with(precision=jax)
    variants["torch-eager"] = {**TWO["torch-eager"], "precision": torch}
    c = comparison(tmp_path, edit, variants=variants)
    assert c.kind == verdicts.FASTER and c.flags == []


def test_tf32_on_both_sides_is_found_where_no_difference_shows_it(tmp_path: Path) -> None:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        summary["contract"]["engine"]["matmul_float32"] = "tf32"
        summary["contract"]["engine"]["matmul_precision"] = "tensorfloat32"

    said = sentences.sentence(comparison(tmp_path, edit, seeds=2))
    assert "declares float32 but computed products in tf32" in said


@pytest.mark.parametrize(
    ("precision", "computed", "did"),
    [
        ("bfloat16", "float32", "computed in float32"),
        ("float64", "float32", "computed in float32"),
        ("tf32", "bfloat16", "computed products in bfloat16"),
        ("float32", "bfloat16", "computed products in bfloat16"),
        ("float32", None, "does not say what it computed in"),
    ],
)
def test_a_declared_precision_is_checked_against_what_was_computed(
    tmp_path, precision, computed, did
) -> None:
    """Of one side too, where it is a difference that both declare."""
    edit = on_jax(set_at(f"{JAX}compute_dtype", computed))
    c = comparison(tmp_path, edit, variants=jax_with(precision=precision), seeds=2)
    assert f"jax-jit declares {precision} but {did}" in c.problems


# One framework, images, input -----------------------------------------------------------------


def test_within_a_framework_only_what_follows_from_the_mode_is_declared(tmp_path: Path) -> None:
    follows = {"compiled": ("no", "step"), "evaluation": ("eager", "compile")}
    own = {"torch": ("2.15.0", "2.14.0"), "deterministic": (False, True), "never_heard_of": (0, 1)}

    def edit(run: Run, summary: dict[str, Any]) -> None:
        for name, values in (follows | own).items():
            summary["contract"]["engine"][name] = values[run.variant == "torch-compile"]

    c = comparison(tmp_path, edit, variants=TORCH, seeds=2)
    declared = {d.fact for d in c.differences if d.level == "declared"}
    assert declared == {"variant.mode", *(f"engine.{name}" for name in follows)}
    assert {d.fact for d in c.flags} == {f"engine.{name}" for name in own}


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


# What was chosen ------------------------------------------------------------------------------


def test_every_declared_setting_is_in_the_verdict(tmp_path: Path) -> None:
    torch = {**TWO["torch-eager"], "memory_format": "channels_last"}
    jax = {**TWO["jax-jit"], "convolution": "im2col", "steps_per_dispatch": 5}
    c = comparison(tmp_path, variants={"torch-eager": torch, "jax-jit": jax})
    assert sentences.sentence(c).startswith(
        "jax-jit is faster, with 5 steps per dispatch and convolutions as im2col, which Lockstep "
        "brings, where torch-eager has images in channels_last memory format: it takes 0."
    )


def test_a_setting_that_no_phrase_knows_appears_by_its_name() -> None:
    own = {"framework": "jax", "mode": "jit", "precision": "float32", "wait_policy": "passive"}
    other = own | {"framework": "torch", "mode": "eager", "wait_policy": "active"}
    assert comparability.phrases(own, other) == ["wait_policy passive"]
    plain = {"framework": "torch", "attention": "written", "randomness": "shared"}
    fused = {**plain, "attention": "fused"}
    assert comparability.phrases(fused, plain) == ["the framework's own fused attention"]
    assert comparability.phrases(plain, {}) == comparability.phrases(plain, fused) == []


# Threats --------------------------------------------------------------------------------------


def test_runs_that_did_not_share_a_job_are_a_threat(tmp_path: Path) -> None:
    assert "Unpaired" in threats_of(analysed(tmp_path / "a", blocks={"paired": False}))
    edit = on_jax(set_at("contract.host.job", {"id": "other"}))
    assert "5 of 5 pairs" in threats_of(analysed(tmp_path / "b", edit=edit))["Unpaired"]


def test_threats_are_what_was_measured(tmp_path: Path) -> None:
    """A study on CPUs of three seeds over two nodes each, with steps that vary."""

    def edit(run: Run, summary: dict[str, Any]) -> None:
        summary["contract"]["engine"]["device"] = "cpu"
        host = summary["contract"]["host"]
        host |= {"gpus": [], "nodes": [{**host, "node": name} for name in ("n1", "n2")]}

    found = threats_of(analysed(tmp_path, seeds=3, edit=edit, spread=0.5))
    assert {"CPU only", "Few seeds", "Noisy step times"} <= found.keys()
    assert "TF32 on CPUs" not in found and "Target not met" not in found
    assert "the node is shared" in found["Noisy step times"]
    assert "on 2 nodes" in found["Several nodes"]


def test_variables_that_one_framework_reads_are_a_threat_where_both_sides_have_them(
    tmp_path: Path,
) -> None:
    def edit(run: Run, summary: dict[str, Any]) -> None:
        engine, topology = summary["contract"]["engine"], summary["contract"]["topology"]
        engine["settings"] = {"JAX_PLATFORMS": "cpu", "OMP_WAIT_POLICY": "passive"}
        if run.seed == 0:
            engine["settings"] |= {"TORCHINDUCTOR_FREEZING": "1"}
            topology["environment"] = {"XLA_FLAGS": "--xla_backend_optimization_level=0"}

    found = threats_of(analysed(tmp_path, seeds=2, edit=edit))["Switches of one framework"]
    assert found.startswith("In 2 of 4 runs the environment set TORCHINDUCTOR_FREEZING and XLA_FLA")


def test_what_a_framework_draws_by_itself_is_beyond_the_proof(tmp_path: Path) -> None:
    found = threats_of(analysed(tmp_path, variants=jax_with(randomness="native"), seeds=2))
    said = "Random numbers of its own, as jax-jit has, were not compared."
    assert said in found["Reach of the parity proof"]


def test_a_step_that_was_compiled_in_parts_is_a_threat(tmp_path: Path) -> None:
    edit = on(set_at("contract.engine.graph_breaks", 3), variant="torch-compile")
    found = analysed(tmp_path, variants=TORCH, seeds=2, edit=edit)
    assert "In 2 of 4 runs" in threats_of(found)["Compiled in parts"]
    assert found.comparisons[0].flags == []  # a variant that compiles may have such parts


def test_what_was_not_learned_and_what_no_cpu_has_is_said(tmp_path: Path) -> None:
    def untrained(run: Run, epochs: list[dict[str, Any]]) -> None:
        for row in epochs:
            row["test_accuracy"] = 0.1

    tf32 = {name: {**variant, "precision": "tf32"} for name, variant in TWO.items()}
    on_cpus = set_at("contract.engine.device", "cpu")
    found = threats_of(
        analysed(tmp_path, seeds=3, variants=tf32, edit=on_cpus, edit_epochs=untrained)
    )
    assert found["TF32 on CPUs"].startswith("6 of 6 runs had precision tf32 on a CPU")
    assert found["Target not met"].startswith("6 of 6 runs did not reach the target")


def test_what_takes_a_verdict_away_or_is_flagged_stands_beside_it_everywhere(tmp_path) -> None:
    edit = on_jax(set_at(f"{JAX}nccl", "2.21.5"))
    found = analysed(tmp_path / "a", edit=edit, seeds=2)
    assert found.tables["comparisons"].rows[0]["beside"] == "NCCL (nccl)"
    assert "2.30.7 against 2.21.5" in analysis.as_json(found)["verdicts"][0]["flags"][0]
    unproven = analysed(tmp_path / "b", seeds=2, parity=False)
    assert "not proven" in unproven.tables["comparisons"].rows[0]["beside"]
