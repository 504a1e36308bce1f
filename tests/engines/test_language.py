"""A workload of tokens: named arrays, dropout from shared bits, AdamW, a loss over letters."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from lockstep import engines, workloads
from lockstep.datasets import checksum
from lockstep.datasets.reader import Reader
from lockstep.engines.contract import Engine, Job
from lockstep.errors import UserError
from lockstep.training.feed import SharedFeed, evaluation_batches
from lockstep.workloads import weights
from lockstep.workloads.contract import Workload
from tests import letters

STEPS = 12


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return letters.prepared(tmp_path_factory.mktemp("letters") / "mine")


@pytest.fixture
def job_of(manifest: Path, caches: Path) -> Callable[..., Job]:
    return lambda variant, **changes: letters.job(manifest, variant, caches, **changes)


def started(job: Job, manifest: Path) -> tuple[Engine, SharedFeed]:
    engine = engines.start(job)
    engine.load(weights.initial(job.workload, job.recipe["model"], 0))
    engine.prepare()
    return engine, SharedFeed(job, Reader(manifest, "train"), 0)


def trained(job: Job, manifest: Path, first: int = 0) -> np.ndarray:
    engine, feed = started(job, manifest)
    return engine.fetch(engine.train(feed.window(first, STEPS)))[0]


@pytest.mark.parametrize("variant", ["torch-compile", "jax", "jax-eager", "jax-4"])
def test_every_variant_trains_the_same_model(job_of, manifest, variant: str) -> None:
    expected = trained(job_of("torch"), manifest, 30)
    np.testing.assert_allclose(trained(job_of(variant), manifest, 30), expected, rtol=1e-12)
    without = trained(job_of("torch", model={"dropout": 0.0}), manifest, 30)
    assert np.abs(expected / without - 1).max() > 1e-4, "dropout changes the loss"


@pytest.mark.parametrize("variant", ["torch", "jax"])
def test_the_checksum_is_of_all_arrays_that_the_model_reads(job_of, manifest, variant) -> None:
    engine, feed = started(job_of(variant), manifest)
    window = feed.window(36, 3)  # of 600 examples in batches of 16 the last one has 8
    assert window.examples.tolist()[:2] == [16, 8]
    _, sums = engine.fetch(engine.train(window))
    for k in range(3):
        batch = {name: window.batch[name][k] for name in ("letters", "key")}
        assert sums[k] == checksum.checksum(batch, int(window.examples[k]))


def test_the_loss_is_of_the_weight_over_all_and_of_no_example_twice(job_of, manifest) -> None:
    engine, feed = started(job_of("torch", model={"dropout": 0.0}), manifest)
    window = feed.window(37, 1)
    assert (window.examples[0], window.weights[0]) == (8, 8 * 29)
    probe = engine.probe(window)
    logits, targets = probe["output/logits"][:8], window.batch["letters"][0, :8, 3:]
    logs = logits - np.log(np.exp(logits).sum(2, keepdims=True))
    own = np.take_along_axis(logs, targets[:, :, None], 2)
    assert probe["loss"] == pytest.approx(-own.mean(), rel=1e-12)


@pytest.mark.parametrize("variant", ["torch", "jax"])
def test_micro_batches_make_the_same_step(job_of, manifest, variant: str) -> None:
    expected = trained(job_of(variant), manifest, 30)
    found = trained(job_of(variant, accumulation=4), manifest, 30)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_run_goes_on_in_the_other_framework(job_of, manifest) -> None:
    whole, feed = started(job_of("torch"), manifest)
    for first in (0, STEPS):
        expected, _ = whole.fetch(whole.train(feed.window(first, STEPS)))
    one, _ = started(job_of("jax"), manifest)
    one.fetch(one.train(feed.window(0, STEPS)))
    two, _ = started(job_of("torch"), manifest)
    two.load(one.state())
    found, _ = two.fetch(two.train(feed.window(STEPS, STEPS)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert {name.split("/")[0] for name in one.state()} == {
        *("param", "first_moment", "second_moment")
    }


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """One bias that is not trained."""
    name = "hidden.bias"
    sound = workloads.spec("letters_lm").parameters

    def parameters(model):
        return tuple(
            p if p.name != name else type(p)(**{**vars(p), "trained": False}) for p in sound(model)
        )

    spec = workloads.spec("letters_lm")
    changed = Workload(**{**vars(spec), "parameters": parameters})
    monkeypatch.setattr("lockstep.workloads.letters_lm.spec.WORKLOAD", changed)
    yield name


@pytest.mark.parametrize("variant", ["torch", "jax"])
def test_a_frozen_parameter_stays_as_it_was_loaded(job_of, manifest, frozen, variant) -> None:
    engine, feed = started(job_of(variant), manifest)
    start = {**engine.state(), f"param/{frozen}": np.full(32, 0.25)}
    engine.load(start)
    engine.fetch(engine.train(feed.window(0, STEPS)))
    state = engine.state()
    assert (state[f"param/{frozen}"] == 0.25).all()
    assert f"first_moment/{frozen}" not in state
    assert f"grad/{frozen}" not in engine.probe(feed.window(0, 1))
    assert (state["param/output.bias"] != start["param/output.bias"]).all()


@pytest.fixture
def warmer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A temperature that rises with every step divides the logits."""
    sound = workloads.spec("letters_lm")
    scalars = lambda recipe, step, total: {"temperature": 1 + step / total}  # noqa: E731
    changed = Workload(**{**vars(sound), "scalars": scalars})
    monkeypatch.setattr("lockstep.workloads.letters_lm.spec.WORKLOAD", changed)
    for name in ("torch_model", "flax_model"):
        functions = importlib.import_module(f"lockstep.workloads.letters_lm.{name}")

        def forward(module, batch, random, train, sound=functions.forward):
            outputs = sound(module, batch, random, train)
            return {"logits": outputs["logits"] / batch["temperature"]}

        monkeypatch.setattr(functions, "forward", forward)


def test_a_number_of_the_workload_is_that_of_its_step(job_of, manifest, warmer) -> None:
    found, probed = [], []
    for variant in ("torch", "jax"):
        job = job_of(variant)
        engine, feed = started(job, manifest)
        window = feed.window(30, STEPS)
        total = feed.total_steps
        expected = 1 + np.arange(30, 30 + STEPS) / total
        np.testing.assert_array_equal(window.numbers["temperature"], expected)
        logits = [engine.probe(feed.window(k, 1))["output/logits"] for k in (0, 30)]
        probed.append(logits)
        losses, _ = engine.fetch(engine.train(window))
        evaluated = engine.evaluate(evaluation_batches(job, Reader(manifest, "test")))
        found.append([*losses, evaluated.loss])
    np.testing.assert_allclose(*found, rtol=1e-12)
    np.testing.assert_allclose(probed[0][1], probed[1][1], rtol=1e-10, atol=1e-13)


def test_evaluations_agree_and_have_their_units(job_of, manifest) -> None:
    found = []
    for variant in ("torch", "jax"):
        job = job_of(variant, evaluation_batch=48)
        engine, _ = started(job, manifest)
        once, again = (
            engine.evaluate(evaluation_batches(job, Reader(manifest, "test"))) for _ in range(2)
        )
        assert once == again
        assert (once.sums["examples"], once.sums["weight"]) == (100, 100 * 29)
        found.append((once.loss, job.finish(once)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-13)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-13)


@pytest.mark.parametrize("variant", ["torch", "jax"])
def test_a_frameworks_own_dropout_is_another(job_of, manifest, variant: str) -> None:
    shared = trained(job_of(variant), manifest)
    native = trained(job_of(variant, settings={"randomness": "native"}), manifest)
    assert 0 < np.abs(native / shared - 1).max() < 0.5


@pytest.mark.parametrize("variant", ["torch", "jax"])
def test_bfloat16_is_near_and_in_force(job_of, manifest, variant: str) -> None:
    exact = trained(job_of(variant, precision="float32"), manifest)
    found = trained(job_of(variant, precision="bfloat16"), manifest)
    assert 1e-6 < np.abs(found / exact - 1).max() < 2e-2


def test_a_batch_without_any_weight_is_refused(job_of, manifest) -> None:
    job = job_of("torch")
    spec = {**vars(job.workload), "weight": lambda rows, r, d: np.zeros(len(rows["letters"]), int)}
    job = Job(**{**vars(job), "workload": Workload(**spec)})
    feed = SharedFeed(job, Reader(manifest, "train"), 0)
    with pytest.raises(UserError, match="the batch of step 5 has nothing to learn from"):
        feed.window(5, 2)


def test_what_prepare_gives_must_be_what_is_declared(job_of, manifest) -> None:
    job = job_of("torch")

    def prepare(*arguments):
        made = workloads.spec("letters_lm").prepare(*arguments)
        return {**made, "letters": made["letters"].astype(np.int64)}

    job = Job(**{**vars(job), "workload": Workload(**{**vars(job.workload), "prepare": prepare})})
    with pytest.raises(ValueError, match=r"prepare gives letters as int64 .*, declared"):
        SharedFeed(job, Reader(manifest, "train"), 0).window(0, 1)
