"""The ladder passes for the same model, and names the first tensor where it is not the same."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from lockstep import engines, workloads
from lockstep.datasets.order import Order
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.engines import jax_optimizer, torch_engine, torch_optimizer
from lockstep.engines.contract import Job
from lockstep.parity import climb, compare, position, route
from lockstep.study import Study
from lockstep.training import feed as feeds
from lockstep.training import schedule
from lockstep.workloads import naming, taps, vision_torch, weights
from lockstep.workloads.contract import Data
from lockstep.workloads.mnist_cnn import torch_model
from tests.conftest import lockstep
from tests.parity.test_rungs import first_failure

STEPS = 25  # more than an epoch of the digits, whose last batch is incomplete


def climbed(study: Study, variant: str, caches: Path, precision: str = "float64") -> dict:
    """One variant's trace in one precision."""
    recipe = study.workload("mnist_cnn")
    job = Job(
        workload=workloads.spec("mnist_cnn"),
        recipe=recipe,
        variant={**study.variant(variant), "precision": precision},
        data=Data.of(read_manifest(study.dataset_manifest("digits"))),
        window_steps=25,
        caches=caches,
    )
    engine = engines.start(job)
    train = Reader(study.dataset_manifest("digits"), "train")
    feed = feeds.SharedFeed(job, train, seed=0)
    state = weights.load(study.weights("mnist_cnn", 0))
    general = position.general(job.workload, recipe, 0)
    way = route.Route(
        recipe=recipe,
        variant=job.variant,
        seed=0,
        manifest=study.dataset_manifest("digits"),
        initial=study.weights("mnist_cnn", 0),
        caches=caches,
        window_steps=job.window_steps,
    )
    climbed = climb.climb(engine, feed, way.evaluation(job), state, general, STEPS)
    return {f"{precision}/{name}": array for name, array in climbed}


@pytest.fixture
def study(study_of: Callable[..., Study]) -> Study:
    return study_of()


@pytest.fixture
def reference(study: Study, caches: Path) -> dict:
    """The sound JAX side, with what a test breaks in PyTorch beside it."""
    return climbed(study, "jax-jit", caches)


def broken(study: Study, caches: Path, reference: dict) -> tuple[str, str | None]:
    found = climbed(study, "torch-eager", caches)
    return first_failure(compare.compare(found, reference, ["float64"]))


def test_the_sound_models_agree(study, caches, reference) -> None:
    rungs = compare.compare(climbed(study, "torch-eager", caches), reference, ["float64"])
    assert first_failure(rungs) == ("none", None)
    assert max(rung.value for rung in rungs) < 1e-13
    assert [rung.name for rung in rungs] == [
        *("weights", "batches", "layers", "forward", "loss", "gradient", "input", "step"),
        *("steps", "final", "edge", "evaluation", "after", "restored", "general", "canary"),
    ]


def rename(monkeypatch, name: str, layout: naming.Layout) -> None:
    sound = torch_model.names({})
    changed = {**sound, name: (sound[name][0], layout)}
    monkeypatch.setattr(torch_model, "names", lambda model: changed)


def test_a_flatten_in_another_order(study, caches, reference, monkeypatch) -> None:
    rename(monkeypatch, "dense1.kernel", naming.DENSE)
    assert broken(study, caches, reference) == ("layers", "dense1")


def test_a_convolution_with_height_and_width_swapped(study, caches, reference, monkeypatch) -> None:
    rename(monkeypatch, "conv2.kernel", naming.Layout(axes=(3, 2, 1, 0)))
    assert broken(study, caches, reference) == ("layers", "conv2")


def test_another_initial_value(study, caches, reference, monkeypatch) -> None:
    load = torch_engine.TorchEngine.load

    def forget(self, state):
        load(self, {**state, "param/conv2.bias": np.zeros_like(state["param/conv2.bias"])})

    monkeypatch.setattr(torch_engine.TorchEngine, "load", forget)
    assert broken(study, caches, reference) == ("weights", "param/conv2.bias")


def test_another_normalisation(study, caches, reference, monkeypatch) -> None:
    monkeypatch.setattr(torch_model, "MEAN", (0.5 + 1e-9,))
    assert broken(study, caches, reference) == ("layers", "conv1")


def test_padding(study, caches, reference, monkeypatch) -> None:
    def forward(self, x):
        # Padded by one and cropped by two on one side: the same shapes, moved by a pixel.
        moved = functional.pad(x, (1, 0, 1, 0))[:, :, :28, :28]
        return sound(self, moved)

    sound = torch_model.MnistCnn.forward
    monkeypatch.setattr(torch_model.MnistCnn, "forward", forward)
    assert broken(study, caches, reference) == ("layers", "conv1")


def test_a_gradient_that_is_stopped(study, caches, reference, monkeypatch) -> None:
    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2).detach()
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return self.fc2(functional.relu(self.fc1(torch.flatten(x, 1))))

    monkeypatch.setattr(torch_model.MnistCnn, "forward", forward)
    assert broken(study, caches, reference) == ("gradient", "conv1.kernel")


def test_label_smoothing(study, caches, reference, monkeypatch) -> None:
    sound = vision_torch.cross_entropy

    def smoothed(logits, labels, amount):
        return sound(logits, labels, 1e-6)

    monkeypatch.setattr(vision_torch, "cross_entropy", smoothed)
    assert broken(study, caches, reference) == ("loss", "loss")


@pytest.mark.parametrize(
    ("changes", "rung"),
    [
        ({"weight_decay": 1e-4}, "step"),
        ({"nesterov": True}, "step"),
        ({"clip_norm": 0.1}, "step"),
        ({"momentum": 0.9 + 1e-6}, "steps"),
    ],
)
def test_another_optimizer(study, caches, reference, monkeypatch, changes, rung) -> None:
    sound = torch_optimizer.Optimizer.__init__

    def make(self, settings, *rest):
        sound(self, {**settings, **changes}, *rest)

    monkeypatch.setattr(torch_optimizer.Optimizer, "__init__", make)
    found, first = broken(study, caches, reference)
    assert found == rung
    assert first is not None


def test_another_learning_rate(study, caches, reference, monkeypatch) -> None:
    rates = schedule.learning_rates
    monkeypatch.setattr(schedule, "learning_rates", lambda *a: rates(*a) * (1 + 1e-6))
    found, _ = broken(study, caches, reference)
    assert found in ("step", "steps")


def test_an_evaluation_that_forgets_an_example(study, caches, reference, monkeypatch) -> None:
    evaluate = torch_engine.TorchEngine.evaluate

    def forgetful(self, batches):
        return evaluate(
            self, [{**b, "real": b["real"] * (np.arange(len(b["real"])) > 0)} for b in batches]
        )

    monkeypatch.setattr(torch_engine.TorchEngine, "evaluate", forgetful)
    assert broken(study, caches, reference) == ("evaluation", "examples")


def test_another_metric(study, caches, reference, monkeypatch) -> None:
    monkeypatch.setattr(torch_model, "accuracy", lambda logits, labels: (labels == 3).double())
    assert broken(study, caches, reference) == ("evaluation", "accuracy")


def test_a_mean_over_the_padding_too(study, caches, reference, monkeypatch) -> None:
    """Only an incomplete batch shows it: the last one of the first epoch, step 22."""
    train = torch_engine.TorchEngine.train

    def careless(self, window):
        return train(self, dataclasses.replace(window, weights=np.full_like(window.weights, 64)))

    monkeypatch.setattr(torch_engine.TorchEngine, "train", careless)
    assert broken(study, caches, reference) == ("steps", "step 22")


def test_two_examples_swapped(study, caches, reference, monkeypatch) -> None:
    batch = Order.batch

    def swapped(self, step):
        indices, count = batch(self, step)
        if step == 7:
            indices = indices.copy()
            indices[[3, 4]] = indices[[4, 3]]
        return indices, count

    monkeypatch.setattr(Order, "batch", swapped)
    assert broken(study, caches, reference) == ("batches", "step 7")


def test_jax_with_optaxs_default_decay(study, caches, monkeypatch) -> None:
    """The other side broken, against PyTorch as the reference."""
    reference = climbed(study, "torch-eager", caches)
    sound = jax_optimizer.Optimizer.__init__
    monkeypatch.setattr(
        jax_optimizer.Optimizer,
        "__init__",
        lambda self, settings, *rest: sound(self, {**settings, "weight_decay": 1e-4}, *rest),
    )
    found = climbed(study, "jax-jit", caches)
    rungs = compare.compare(found, reference, ["float64"])
    assert first_failure(rungs)[0] == "step"


def test_the_gate_stops_a_broken_workload_and_says_why(study_of, tmp_path) -> None:
    """The stage itself: a failing comparison exits with 1, keeps its verdict, opens no gate."""
    study = study_of(parity={"steps": 3, "float32_steps": 3})
    for variant in study.traces():
        lockstep("trace", "--study", study.path, "--workload", "mnist_cnn", "--variant", variant)
    gate = ("parity", "--study", study.path, "--workload", "mnist_cnn")
    lockstep(*gate)
    assert study.passed("mnist_cnn").is_file()

    path = study.trace("mnist_cnn", "jax-jit")
    arrays = dict(np.load(path))
    arrays["float64/gradient/conv2.kernel"] = arrays["float64/gradient/conv2.kernel"] * (1 + 1e-9)
    with open(path, "wb") as stream:
        np.savez(stream, **arrays)
    failed = lockstep(*gate, check=False)
    assert failed.returncode == 1
    assert (
        "jax-jit is not torch-eager: float64 gradient: conv2.kernel differs by 1.0" in failed.stderr
    )
    assert not study.passed("mnist_cnn").exists()
    assert study.verdict("mnist_cnn").is_file()


def test_not_a_number_fails(reference) -> None:
    spoiled = dict(reference)
    spoiled["float64/steps/loss"] = reference["float64/steps/loss"].copy()
    spoiled["float64/steps/loss"][9] = np.nan
    rungs = compare.compare(spoiled, reference, ["float64"])
    assert first_failure(rungs) == ("steps", "step 9")


@pytest.mark.parametrize(
    "shape", [(3, 3, 512, 512), (1, 1, 2048, 512), (1, 1, 512, 2048), (512, 10), (2048, 1000)]
)
def test_a_sample_is_of_every_channel(shape: tuple[int, ...]) -> None:
    seen = np.unravel_index(taps.places(int(np.prod(shape)), climb.SAMPLE), shape)
    assert len(seen[0]) == climb.SAMPLE == len(set(zip(*map(np.ndarray.tolist, seen), strict=True)))
    *others, channels = (len(np.unique(axis)) / length for axis, length in zip(seen, shape))
    assert channels == 1
    assert min(others) > 0.8
