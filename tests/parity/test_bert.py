"""BERT climbs the ladder with dropout on, and each way to get it quietly wrong is named."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from lockstep import workloads
from lockstep.engines import torch_optimizer
from lockstep.parity import compare, distances
from lockstep.study import config
from lockstep.workloads import bert, randomness_torch, recipe, weights
from tests import texts
from tests.conftest import ROOT
from tests.parity import climber
from tests.parity.residual import verdict

STEPS = 4
VARIANTS = {
    "torch-eager": {"framework": "torch", "mode": "eager"},
    "torch-compile": {"framework": "torch", "mode": "compile"},
    "jax-jit": {"framework": "jax", "mode": "jit"},
    "torch-fused": {"framework": "torch", "mode": "eager", "attention": "fused"},
    "jax-fused": {"framework": "jax", "mode": "jit", "attention": "fused"},
}
Trace = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Climb:
    """Climbs the ladder with a small BERT."""

    folder: Path
    caches: Path

    def __call__(
        self,
        name: str,
        variant: str,
        steps: int = STEPS,
        precision: str = "float64",
        processes: int = 1,
        local_means: bool = False,
        **changes: object,
    ) -> Trace:
        """Return a trace, by as many processes; with a fault of `climber` if wanted."""
        request = self.request(name, variant, precision, changes)
        request |= {"steps": steps, "local_means": local_means}
        return climber.climbed(request, self.folder, processes, threads=1)

    def request(self, name: str, variant: str, precision: str, changes: dict) -> dict:
        """What a process is told that climbs."""
        spec = workloads.spec(name)
        entry = recipe.override(spec.recipe, spec.small, where=name)
        # The clipping is in force, and the warm-up is over before the climb is.
        clipped = {"optimizer": {"clip_norm": 0.1}, "schedule": {"warmup_steps": 2}}
        if name == "bert_classify":
            clipped["schedule"] = {"warmup_epochs": 0.05}
        entry = recipe.override(recipe.override(entry, clipped, where=name), changes, where=name)
        state = weights.initial(spec, entry["model"], 0)
        initial = self.folder / f"{weights.digest(state)}.safetensors"
        weights.save(initial, state)
        study = {
            "study": "bert",
            "datasets": {"digits": {"source": "digits"}},
            "workloads": {"mnist_cnn": {"dataset": "digits"}},
            "variants": {variant: {**VARIANTS[variant], "precision": precision}},
        }
        return {
            "recipe": {"workload": name, **entry},
            "variant": config.complete(study)["variants"][variant],
            "manifest": str(self.manifest(name)),
            "seed": 0,
            "initial": str(initial),
            "batches": 1,
            "caches": str(self.caches),
            "window_steps": 25,
        }

    def manifest(self, name: str) -> Path:
        source = {"bert_mlm": "text", "bert_classify": "glue"}[name]
        path = self.folder / source / "manifest.json"
        return path if path.is_file() else texts.prepared(self.folder, source)


@pytest.fixture(scope="module")
def climb(tmp_path_factory: pytest.TempPathFactory, caches: Path) -> Iterator[Climb]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}/workflow:{ROOT}")
        yield Climb(tmp_path_factory.mktemp("bert"), caches)


@pytest.fixture(scope="module")
def reference(climb: Climb) -> Trace:
    """The sound JAX side of pretraining."""
    return climb("bert_mlm", "jax-jit")


def test_pretraining_is_the_same(climb: Climb, reference: Trace) -> None:
    trace = climb("bert_mlm", "torch-eager")
    assert verdict(trace, reference) == ("none", None)
    rungs = compare.compare(trace, reference, ["float64"])
    assert max(rung.value for rung in rungs) < 1e-13
    assert {"float64/evaluation/accuracy", "float64/evaluation/perplexity"} <= set(trace)
    trained = [name for name in trace if name.startswith("float64/gradient/layers.0")]
    assert len(trained) == 15  # all but the key bias


def test_fine_tuning_is_the_same(climb: Climb) -> None:
    traces = [climb("bert_classify", variant) for variant in ("torch-eager", "jax-jit")]
    assert verdict(*traces) == ("none", None)


@pytest.mark.slow
def test_compiled_pretraining_is_the_same(climb: Climb, reference: Trace) -> None:
    assert verdict(climb("bert_mlm", "torch-compile"), reference) == ("none", None)


@pytest.mark.slow
def test_fused_attention_is_the_same_in_float32(climb: Climb) -> None:
    model = {"attention_dropout": 0.0}
    for name in ("bert_mlm", "bert_classify"):
        fused = [
            climb(name, variant, precision="float32", model=model)
            for variant in ("torch-fused", "jax-fused")
        ]
        written = climb(name, "torch-eager", precision="float32", model=model)
        for trace in fused:
            found = distances.distance(trace["float32/steps/loss"], written["float32/steps/loss"])
            assert found < 1e-6


@pytest.mark.slow
def test_three_hundred_steps_with_dropout_stay_the_same(climb: Climb) -> None:
    traces = [climb("bert_mlm", variant, steps=300) for variant in ("torch-eager", "jax-jit")]
    assert verdict(*traces) == ("none", None)
    losses = [trace["float64/steps/loss"] for trace in traces]
    assert len(losses[0]) == 300
    np.testing.assert_allclose(*losses, rtol=1e-11)


@pytest.mark.drill
def test_a_hundred_steps_in_float32_stay_within_the_fixed_tolerance(climb: Climb) -> None:
    traces = [
        climb("bert_mlm", variant, steps=100, precision="float32")
        for variant in ("torch-eager", "jax-jit")
    ]
    np.testing.assert_allclose(*(t["float32/steps/loss"] for t in traces), rtol=1e-5)


@pytest.mark.slow
def test_two_processes_of_unequal_weight_make_the_same_steps(climb: Climb) -> None:
    traces = [
        climb("bert_mlm", variant, steps=20, processes=2) for variant in ("torch-eager", "jax-jit")
    ]
    assert verdict(*traces) == ("none", None)
    alone = climb("bert_mlm", "torch-eager", steps=20)
    np.testing.assert_allclose(
        traces[0]["float64x2/steps/loss"], alone["float64/steps/loss"], rtol=1e-11
    )
    faulty = climb("bert_mlm", "torch-eager", steps=20, processes=2, local_means=True)
    assert verdict(faulty, traces[1]) == ("loss", "loss"), "a mean of local means"


@pytest.mark.slow
def test_lamb_makes_the_same_steps(climb: Climb) -> None:
    changes = {"optimizer": {"name": "lamb", "learning_rate": 0.01}}
    traces = [climb("bert_mlm", v, steps=30, **changes) for v in ("torch-eager", "jax-jit")]
    assert verdict(*traces) == ("none", None)


@pytest.mark.slow
def test_a_compiled_gradient_of_looked_up_rows_has_the_same_bits_each_time(climb: Climb) -> None:
    engine, feed = climber.started(climb.request("bert_mlm", "torch-compile", "float64", {}))
    window = feed.window(0, 1)
    found = {engine.probe(window)["grad/word.embedding"].tobytes() for _ in range(40)}
    assert len(found) == 1


@pytest.mark.slow
def test_a_run_that_changes_its_framework_goes_on_as_it_would_have(climb: Climb) -> None:
    requests = (
        climb.request("bert_mlm", variant, "float64", {}) for variant in ("torch-eager", "jax-jit")
    )
    found, expected = climber.changed_over(*requests)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


# Faults --------------------------------------------------------------------------------------


def broken(climb: Climb, reference: Trace) -> tuple[str, str | None]:
    return verdict(climb("bert_mlm", "torch-eager"), reference)


def test_another_epsilon(climb, reference, monkeypatch) -> None:
    monkeypatch.setattr(bert, "EPSILON", 1e-6)
    assert broken(climb, reference) == ("layers", "embedding_norm")


def test_gelu_by_tanh(climb, reference, monkeypatch) -> None:
    exact = functional.gelu
    monkeypatch.setattr(functional, "gelu", lambda x: exact(x, approximate="tanh"))
    assert broken(climb, reference) == ("layers", "layers.0.outer")


def test_a_mask_compared_unsigned(climb, reference, monkeypatch) -> None:
    def keep_mask(keys, site, shape, keep):
        size = int(np.prod(shape))
        halves = randomness_torch.words(keys, site, -(-size // 2)).view(torch.int16)[:, :size]
        kept = (halves.int() & 0xFFFF) < round(65536 * keep)
        return kept.reshape(len(keys), *shape)

    monkeypatch.setattr(randomness_torch, "keep_mask", keep_mask)
    assert broken(climb, reference)[0] == "random"


def dropout(change) -> object:
    """Dropout by other keys."""
    sound = randomness_torch.dropout
    return lambda x, keys, site, rate: sound(x, change(keys), site, rate)


def test_one_mask_for_all_examples(climb, reference, monkeypatch) -> None:
    def first(keys):
        return keys[:1].repeat(len(keys), 1)

    monkeypatch.setattr(randomness_torch, "dropout", dropout(first))
    assert broken(climb, reference)[0] in ("random", "layers")


def test_one_mask_for_all_heads(climb, reference, monkeypatch) -> None:
    sound = randomness_torch.dropout

    def broadcast(x, keys, site, rate):
        if x.ndim != 4:
            return sound(x, keys, site, rate)
        kept = sound(torch.ones_like(x[:, :1]), keys, site, rate)
        return x * kept

    monkeypatch.setattr(randomness_torch, "dropout", broadcast)
    assert broken(climb, reference) == ("layers", "layers.0.attended")


def test_dropout_of_a_place_that_is_off_by_one(climb, reference, monkeypatch) -> None:
    monkeypatch.setattr(bert, "OUTER", 3)
    assert broken(climb, reference) == ("layers", "layers.0.outer_norm")


def test_clipping_without_an_epsilon(climb, reference, monkeypatch) -> None:
    def clip(grads, bound):
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        torch._foreach_mul_(grads, (bound / norm).clamp(max=1.0))

    monkeypatch.setattr(torch_optimizer, "clip", clip)
    assert broken(climb, reference)[0] == "step"


def test_decay_on_norms_and_biases(climb, reference, monkeypatch) -> None:
    sound = torch_optimizer.Optimizer.__init__

    def make(self, settings, described, parameters):
        sound(self, settings, [dataclasses.replace(p, decay=True) for p in described], parameters)

    monkeypatch.setattr(torch_optimizer.Optimizer, "__init__", make)
    assert broken(climb, reference)[0] == "step"


def test_a_key_bias_that_is_trained(climb, reference, monkeypatch) -> None:
    spec = workloads.spec("bert_mlm")
    parameters = [dataclasses.replace(p, trained=True) for p in spec.parameters(spec_model())]
    changed = dataclasses.replace(spec, parameters=lambda model: tuple(parameters))
    monkeypatch.setattr("lockstep.workloads.bert_mlm.spec.WORKLOAD", changed)
    assert broken(climb, reference) != ("none", None)


def spec_model() -> dict:
    spec = workloads.spec("bert_mlm")
    return recipe.override(spec.recipe, spec.small, where="bert_mlm")["model"]
