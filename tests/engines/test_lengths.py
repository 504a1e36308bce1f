"""Examples of several lengths: a batch is of one of them, a window of one shape."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep import engines, workloads
from lockstep.datasets import checksum, prepare
from lockstep.datasets.reader import Reader
from lockstep.engines.contract import Job, Window
from lockstep.engines.torch_engine import TorchEngine
from lockstep.errors import UserError
from lockstep.parity import position
from lockstep.parity.climb import climb
from lockstep.parity.rungs import compare
from lockstep.training.feed import SharedFeed, evaluation_batches
from lockstep.training.native_feed import NativeFeed
from lockstep.workloads import weights
from lockstep.workloads.contract import Array, Data, Workload
from tests import letters

LENGTHS = (20, 32)
SOURCE = '''"""Rows of the letters' source, cut after 9 to 32 of them."""

import numpy as np

from lockstep.datasets import keys
from lockstep.datasets.arrays import Ragged
from letters import ALPHABET, LICENCE, ORIGIN, describe
from letters import read as whole


def read(raw, options):
    for split, arrays in whole(raw, options):
        rows = arrays["letters"]
        lengths = 9 + (keys.words(len(rows), "lengths", split) % np.uint64(24)).astype(np.int64)
        values = np.concatenate([row[:n] for row, n in zip(rows, lengths)])
        yield split, {"letters": Ragged(values=values, lengths=lengths)}
'''


def workload() -> Workload:
    """The page's model of rows that are padded to one of two lengths."""
    sound = workloads.spec("letters_lm")

    def arrays(recipe: Any, data: Data, train: bool) -> tuple[Array, ...]:
        own, *others = sound.arrays(recipe, data, train)
        return (Array(**{**vars(own), "shape": (data.length,)}), *others)

    def made(rows: Any, draws: Any, recipe: Any, data: Data, train: bool) -> dict[str, np.ndarray]:
        padded = rows["letters"].padded(data.length, fill=1)
        return {"letters": padded.astype(np.int32), "key": draws["key"]}

    def weight(rows: Mapping[str, Any], recipe: Any, data: Data) -> np.ndarray:
        return np.array(LENGTHS)[np.searchsorted(LENGTHS, rows["letters"].lengths)] - 3

    changes = {"arrays": arrays, "prepare": made, "weight": weight, "length_of": "letters"}
    lengths = lambda recipe, data: LENGTHS  # noqa: E731
    return Workload(**{**vars(sound), **changes, "lengths": lengths})


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    letters.prepared(tmp_path_factory.mktemp("letters") / "mine")
    folder = tmp_path_factory.mktemp("ragged")
    letters.write(folder)
    (folder / "ragged.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        entry = {"source": "ragged", "file": str(folder / "ragged.py"), "options": {}}
        prepare.prepare("ragged", entry, "0" * 64, folder, folder / "data")
    return folder / "data" / "manifest.json"


@pytest.fixture
def job_of(manifest: Path, caches: Path) -> Callable[..., Job]:
    def job(variant: str, **changes: Any) -> Job:
        found = letters.job(manifest, variant, caches, **changes)
        return Job(**{**vars(found), "workload": workload(), "window_steps": 3})

    return job


def trained(job: Job, manifest: Path, steps: int) -> Iterator[np.ndarray]:
    engine = engines.start(job)
    engine.load(weights.initial(job.workload, job.recipe["model"], 0))
    engine.prepare()
    feed = SharedFeed(job, Reader(manifest, "train"), 0)
    for window in feed.windows(0, steps):
        losses, sums = engine.fetch(engine.train(window))
        batch = {n: a[0] for n, a in window.batch.items() if n != "real"}
        assert sums[0] == checksum.checksum(batch, int(window.examples[0]))
        yield losses
    found = engine.evaluate(evaluation_batches(job, Reader(manifest, "test")))
    assert found.sums["examples"] == 100
    yield np.array([found.loss])


def test_every_variant_trains_the_same_model(job_of, manifest: Path) -> None:
    whole = {
        variant: np.concatenate(list(trained(job_of(variant), manifest, 39)))
        for variant in ("torch", "torch-compile", "jax", "jax-eager")
    }
    assert len(whole["torch"]) == 39 + 1
    for variant, losses in whole.items():
        np.testing.assert_allclose(losses, whole["torch"], rtol=1e-12, err_msg=variant)


def test_a_window_has_examples_of_one_length(job_of, manifest: Path) -> None:
    job, reader = job_of("jax"), Reader(manifest, "train")
    feed, own, seen = SharedFeed(job, reader, 0), reader.lengths("letters"), []
    for (first, steps), window in zip(
        feed.edges(0, feed.steps_per_epoch), feed.windows(0, feed.steps_per_epoch), strict=True
    ):
        assert window.batch["letters"].shape == (3, 16, window.length)
        for step in range(first, first + steps):
            indices, count = feed.order.batch(step)
            below = max([0, *(n for n in LENGTHS if n < window.length)])
            assert (own[indices] > below).all() and (own[indices] <= window.length).all()
            seen += indices[:count].tolist()
    assert sorted(seen) == list(range(600))
    with pytest.raises(ValueError, match="of several lengths"):
        feed.window(feed.end(0) - 1, 2)
    with pytest.raises(UserError, match="input: native cannot put examples of one length"):
        NativeFeed(Job(**{**vars(job), "variant": {**job.variant, "input": "native"}}), manifest, 0)


def climbed(job: Job, manifest: Path, steps: int, seed: int = 0) -> dict[str, np.ndarray]:
    state = weights.initial(job.workload, job.recipe["model"], 0)
    general = position.general(job.workload, job.recipe, 0)
    feed = SharedFeed(job, Reader(manifest, "train"), seed)
    batches = list(evaluation_batches(job, Reader(manifest, "test"), batch=16))
    return dict(climb(engines.start(job), feed, batches, state, general, steps))


def test_the_ladder_is_climbed_over_all_lengths(job_of, manifest: Path) -> None:
    torch, jax = (climbed(job_of(variant), manifest, 20) for variant in ("torch", "jax"))
    assert torch.keys() == jax.keys()
    for name, array in torch.items():
        if name.partition("/")[0] in ("steps", "edge", "edges", "evaluation", "after", "canary"):
            np.testing.assert_allclose(array, jax[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_fault_at_a_length_that_the_first_steps_do_not_have_is_named(
    job_of, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = 13  # where an epoch begins and ends with rows of the other length
    reference, sound = climbed(job_of("torch"), manifest, 2, seed), TorchEngine.train

    def halved(self: TorchEngine, window: Window) -> Any:
        if window.length == LENGTHS[0]:
            window = dataclasses.replace(window, weights=2 * window.weights)
        return sound(self, window)

    monkeypatch.setattr(TorchEngine, "train", halved)
    sides = [
        {f"float64/{name}": array for name, array in side.items()}
        for side in (climbed(job_of("torch"), manifest, 2, seed), reference)
    ]
    found = {rung.name: rung for rung in compare(*sides, ["float64"])}
    assert found["steps"].passed
    assert found["edge"].first == f"loss of a step of length {LENGTHS[0]}"
