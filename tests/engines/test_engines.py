"""Each engine against the contract: what it consumes, what it computes, how it is dispatched."""

import contextlib
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lockstep import engines, workloads
from lockstep.datasets import checksum
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.engines import torch_setup
from lockstep.engines.contract import Engine, Job
from lockstep.errors import UserError
from lockstep.study import Study
from lockstep.training.feed import SharedFeed, evaluation_batches
from lockstep.workloads import recipe, weights
from lockstep.workloads.contract import Data

VARIANTS = {
    "torch-eager": {"framework": "torch", "mode": "eager"},
    "torch-channels-last": {
        "framework": "torch",
        "mode": "eager",
        "memory_format": "channels_last",
    },
    "torch-compile": {"framework": "torch", "mode": "compile"},
    "jax-jit": {"framework": "jax", "mode": "jit", "convolution": "im2col"},
    "jax-native": {"framework": "jax", "mode": "jit"},
    "jax-eager": {"framework": "jax", "mode": "eager", "convolution": "im2col"},
    "jax-jit-4": {
        "framework": "jax",
        "mode": "jit",
        "convolution": "im2col",
        "steps_per_dispatch": 4,
    },
}
WINDOW = 6
SGD = recipe.override(
    recipe.RECIPE["optimizer"], {"learning_rate": 0.01, "momentum": 0.9}, where="test"
)


@pytest.fixture
def study(study_of: Callable[..., Study]) -> Study:
    return study_of(variants=VARIANTS)


@pytest.fixture
def engine_of(study: Study, caches: Path) -> Callable[..., tuple[Engine, SharedFeed, Job]]:
    def make(variant: str, precision: str = "float64", window: int = WINDOW, **changes: object):
        job = Job(
            workload=workloads.spec("mnist_cnn"),
            recipe={**study.workload("mnist_cnn"), **changes},
            variant={**study.variant(variant), "precision": precision},
            data=Data.of(read_manifest(study.dataset_manifest("digits"))),
            window_steps=window,
            caches=caches,
        )
        engine = engines.start(job)
        engine.load(weights.load(study.weights("mnist_cnn", 0)))
        engine.prepare()
        feed = SharedFeed(job, Reader(study.dataset_manifest("digits"), "train"), seed=0)
        return engine, feed, job

    return make


@pytest.fixture
def expected(engine_of) -> np.ndarray:
    """Losses of a window across the epoch's end, by the plainest variant."""
    engine, feed, _ = engine_of("torch-eager")
    return engine.fetch(engine.train(feed.window(20, WINDOW)))[0]


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "torch-eager"])
def test_every_variant_trains_the_same_model(engine_of, expected, variant: str) -> None:
    engine, feed, _ = engine_of(variant)
    losses, _ = engine.fetch(engine.train(feed.window(20, WINDOW)))
    np.testing.assert_allclose(losses, expected, rtol=1e-11)


@pytest.mark.parametrize("variant", ["torch-eager", "jax-eager", "jax-jit-4"])
def test_a_window_that_was_staged_is_trained_alike(engine_of, variant: str) -> None:
    found = []
    for ahead in (False, True):
        engine, feed, _ = engine_of(variant, "float32")
        with contextlib.closing(
            feed.windows(0, 2 * WINDOW, engine.stage if ahead else lambda window: window)
        ) as windows:
            found.append([engine.fetch(engine.train(window)) for window in windows])
    for plain, staged in zip(*found, strict=True):
        np.testing.assert_array_equal(plain, staged)


@pytest.mark.parametrize("variant", ["jax-eager", "jax-jit"])
@pytest.mark.parametrize("steps", [3, 7, 10])
def test_a_window_is_cut_into_its_steps(engine_of, variant: str, steps: int) -> None:
    engine, feed, _ = engine_of(variant, window=steps)
    window = feed.window(0, steps)
    rows = engine.stage(window).staged
    assert len(rows) == steps
    for k, (batch, numbers) in enumerate(rows):
        for name, array in batch.items():
            np.testing.assert_array_equal(array, window.batch[name][k])
        assert window.weights[k] in np.asarray(numbers)


@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_the_checksum_is_of_what_was_consumed(engine_of, variant: str) -> None:
    engine, feed, _ = engine_of(variant, "float32")
    window = feed.window(20, WINDOW)  # step 22 is incomplete
    _, checksums = engine.fetch(engine.train(window))
    for k in range(WINDOW):
        batch = {name: window.batch[name][k] for name in ("image", "label")}
        assert checksums[k] == checksum.checksum(batch, int(window.examples[k]))
    window.batch["image"][3, 5, 14, 14] ^= 1
    _, changed = engine.fetch(engine.train(window))
    assert [k for k in range(WINDOW) if changed[k] != checksums[k]] == [3]


@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_padding_changes_nothing(engine_of, variant: str) -> None:
    engine, feed, _ = engine_of(variant)
    window = feed.window(22, 1)
    before = engine.probe(window)
    window.batch["image"][0, 29:] = 255
    window.batch["label"][0, 29:] = 9
    after = engine.probe(window)
    assert window.examples[0] == 29
    for name in before:
        if not name.startswith(("output/", "tap/")):  # what rows of padding have is theirs
            np.testing.assert_array_equal(before[name], after[name], err_msg=name)


@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit", "jax-jit-4"])
def test_a_window_may_be_shorter_than_its_arrays(engine_of, variant: str) -> None:
    whole, feed, _ = engine_of(variant)
    one = whole.fetch(whole.train(feed.window(0, 5)))[0]
    parts, feed, _ = engine_of(variant)
    two = [parts.fetch(parts.train(feed.window(first, n)))[0] for first, n in ((0, 4), (4, 1))]
    np.testing.assert_array_equal(one, np.concatenate(two))


@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_a_state_is_given_back_as_it_was_taken(engine_of, study, variant: str) -> None:
    engine, _, _ = engine_of(variant, "float32")
    random = np.random.default_rng(0)
    initial = weights.load(study.weights("mnist_cnn", 0))
    slots = {n.replace("param", "momentum"): v for n, v in initial.items()}
    state = {n: random.normal(size=v.shape) for n, v in {**initial, **slots}.items()}
    state = {name: value.astype(np.float32) for name, value in state.items()}
    engine.load(state)
    assert weights.digest(engine.state()) == weights.digest(state)


@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit", "jax-eager"])
def test_neither_preparing_nor_a_later_step_changes_a_state(engine_of, study, variant: str) -> None:
    engine, feed, _ = engine_of(variant, "float32")  # prepared
    initial = weights.load(study.weights("mnist_cnn", 0))
    state = engine.state()
    assert weights.digest({name: state[name] for name in initial}) == weights.digest(initial)
    assert not any(value.any() for name, value in state.items() if name not in initial)
    before = weights.digest(state)
    engine.fetch(engine.train(feed.window(0, 1)))
    assert weights.digest(state) == before != weights.digest(engine.state())


@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_a_state_of_another_model_is_refused(engine_of, study, variant: str) -> None:
    engine, _, _ = engine_of(variant, "float32")
    engine.load(weights.load(study.weights("mnist_cnn", 0)))
    state = engine.state()
    for changes, says in (
        (
            {"param/dense2.bias": np.zeros(1, np.float32)},
            r"dense2.bias of shape \(1,\), not \(10,\)",
        ),
        ({"param/dense3.bias": np.zeros(1, np.float32)}, "dense3.bias of shape .* too many"),
    ):
        with pytest.raises(UserError, match=says):
            engine.load({**state, **changes})
    del state["momentum/conv1.kernel"]
    with pytest.raises(UserError, match="no momentum/conv1.kernel"):
        engine.load(state)


@pytest.mark.parametrize(("given", "then"), [(None, ":4096:8"), (":16:8", ":16:8")])
def test_deterministic_products_of_cublas_are_allowed(study, monkeypatch, given, then) -> None:
    """PyTorch refuses every matrix product on a GPU unless the environment says so."""
    name = "CUBLAS_WORKSPACE_CONFIG"
    monkeypatch.setenv(name, given or "")
    if given is None:
        monkeypatch.delenv(name)
    workload, entry = workloads.spec("mnist_cnn"), study.workload("mnist_cnn")
    variant = study.variant("torch-eager")
    data = Data.of(read_manifest(study.dataset_manifest("digits")))
    try:
        for deterministic, expected in ((False, given), (True, then)):
            settings = {**variant, "deterministic": deterministic}
            job = Job(workload=workload, recipe=entry, variant=settings, data=data, window_steps=1)
            engines.start(job)
            assert os.environ.get(name) == expected
    finally:
        torch.use_deterministic_algorithms(False)


def test_evaluations_agree_and_count_every_example(engine_of, study) -> None:
    sums = []
    for variant in ("torch-eager", "jax-jit", "torch-compile"):
        engine, _, job = engine_of(variant)
        test = Reader(study.dataset_manifest("digits"), "test")
        sums.append(engine.evaluate(evaluation_batches(job, test)))
    assert sums[0].sums["examples"] == sums[0].sums["weight"] == 360
    for other in sums[1:]:
        assert job.finish(other) == job.finish(sums[0])
        assert other.loss == pytest.approx(sums[0].loss, rel=1e-12)


def test_an_evaluation_is_padded_to_no_more_than_there_is(engine_of, study) -> None:
    _, _, job = engine_of("torch-eager")
    job = dataclasses.replace(job, recipe={**job.recipe, "evaluation_batch": 10**12})
    (batch,) = evaluation_batches(job, Reader(study.dataset_manifest("digits"), "test"))
    assert batch["real"].shape == (360,)


@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_bfloat16_computes_in_bfloat16_and_keeps_float32(engine_of, variant: str) -> None:
    engine, feed, _ = engine_of(variant, "bfloat16")
    exact, _, _ = engine_of(variant, "float32")
    losses = engine.fetch(engine.train(feed.window(0, WINDOW)))[0]
    reference = exact.fetch(exact.train(feed.window(0, WINDOW)))[0]
    difference = np.abs(losses / reference - 1).max()
    assert 1e-6 < difference < 2e-2
    assert {array.dtype for array in engine.state().values()} == {np.dtype(np.float32)}
    facts = engine.facts()
    assert (facts["parameter_dtype"], facts["compute_dtype"]) == ("float32", "bfloat16")


def test_a_graph_that_torch_compile_cuts_is_counted() -> None:
    def cut(x: torch.Tensor) -> torch.Tensor:
        x = x + 1
        torch._dynamo.graph_break()
        return x * 2

    before = torch_setup.graph_breaks()
    torch.compile(cut, backend="eager")(torch.ones(2))
    assert torch_setup.graph_breaks() > before


@pytest.mark.parametrize("decay", ["coupled", "decoupled"])
def test_weight_decay_and_nesterov_agree(engine_of, decay: str) -> None:
    optimizer = {**SGD, "nesterov": True, "weight_decay": 0.01, "decay": decay}
    engine, feed, _ = engine_of("torch-eager", optimizer=optimizer, label_smoothing=0.1)
    other, _, _ = engine_of("jax-jit", optimizer=optimizer, label_smoothing=0.1)
    losses = [e.fetch(e.train(feed.window(0, WINDOW)))[0] for e in (engine, other)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-11)


@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_plain_sgd_without_momentum(engine_of, variant: str) -> None:
    optimizer = {**SGD, "momentum": 0.0}
    engine, feed, _ = engine_of(variant, optimizer=optimizer)
    gradient = engine.probe(feed.window(0, 1))["grad/dense2.bias"]
    before = engine.state()["param/dense2.bias"]
    engine.fetch(engine.train(feed.window(0, 1)))
    after = engine.state()
    np.testing.assert_allclose(after["param/dense2.bias"], before - 0.01 * gradient, rtol=1e-12)
    assert not [name for name in after if name.startswith("momentum/")]
