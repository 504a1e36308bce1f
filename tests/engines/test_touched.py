"""With the update `touched_rows` a step changes those rows of a table that its batch looks up."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lockstep import engines
from lockstep.datasets.reader import Reader
from lockstep.engines.contract import Job, Topology
from lockstep.training.feed import SharedFeed
from lockstep.workloads import weights
from lockstep.workloads.dlrm import spec
from tests import click_logs
from tests.conftest import ROOT
from tests.engines import touched

STEPS = 6
OPTIMIZERS = {
    "sgd": {"name": "sgd"},
    "adagrad": {"name": "adagrad"},
    "by row": {"name": "rowwise_adagrad"},
}
Trained = tuple[np.ndarray, dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return click_logs.prepared(tmp_path_factory.mktemp("touched"))


@pytest.fixture(scope="module")
def train(manifest: Path, caches: Path) -> Callable[..., Trained]:
    def trained(side: str, tables: dict, **changes: object) -> Trained:
        optimizer = {"learning_rate": 0.05, "groups": {"tables": tables}}
        job = click_logs.job(manifest, side, caches, optimizer=optimizer, **changes)
        engine = engines.start(job)
        engine.load(weights.initial(job.workload, job.recipe["model"], 0))
        feed = SharedFeed(job, Reader(manifest, "train"), 0)
        losses, _ = engine.fetch(engine.train(feed.window(0, STEPS)))
        return losses, engine.state()

    return trained


def initial(job: Job) -> dict[str, np.ndarray]:
    return weights.initial(job.workload, job.recipe["model"], 0)


def looked_up(manifest: Path, job: Job) -> list[np.ndarray]:
    """The rows of each table that the first steps look up."""
    window = SharedFeed(job, Reader(manifest, "train"), 0).window(0, STEPS)
    ids = window.batch["ids"][:STEPS].reshape(-1, click_logs.LOOKUPS)
    return [np.unique(ids[:, column]) for column in range(click_logs.LOOKUPS)]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("side", ["torch", "jax"])
def test_the_rows_alone_become_what_a_dense_update_makes_of_them(
    train, manifest, side: str, name: str
) -> None:
    losses, state = train(side, {**OPTIMIZERS[name], "update": "touched_rows"})
    expected, dense = train("torch", {**OPTIMIZERS[name], "update": "dense"})
    np.testing.assert_allclose(losses, expected, rtol=1e-13)
    assert state.keys() == dense.keys()
    for key, array in dense.items():
        np.testing.assert_allclose(state[key], array, rtol=1e-11, atol=1e-15, err_msg=key)
    job = click_logs.job(manifest, side)
    start = initial(job)
    for column, rows in enumerate(looked_up(manifest, job)):
        key = f"param/tables.{column}.embedding"
        others = np.setdiff1d(np.arange(100), rows)
        assert len(rows) and len(others) > 10
        assert (state[key][others] == start[key][others]).all(), "to the bit"
        assert (state[key][rows] != start[key][rows]).any()


@pytest.mark.parametrize("side", ["torch", "jax"])
def test_micro_batches_make_the_same_step(train, side: str) -> None:
    tables = {"name": "adagrad", "update": "touched_rows"}
    expected, _ = train("torch", tables)
    losses, _ = train(side, tables, accumulation=4)
    np.testing.assert_allclose(losses, expected, rtol=1e-12)


@pytest.mark.parametrize("side", ["torch", "jax"])
def test_all_categories_may_have_one_table(train, monkeypatch, side: str) -> None:
    one = replace(spec.PRESETS["movielens"], tables=(100,))
    monkeypatch.setitem(spec.PRESETS, "movielens", one)
    changes = {"model": {"tables": [100]}}
    losses, state = train(side, {"name": "adagrad", "update": "touched_rows"}, **changes)
    expected, dense = train("torch", {"name": "adagrad"}, **changes)
    np.testing.assert_allclose(losses, expected, rtol=1e-13)
    key = "param/tables.0.embedding"
    np.testing.assert_allclose(state[key], dense[key], rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("side", ["torch", "jax"])
def test_two_devices_exchange_rows_and_no_table(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}/workflow:{ROOT}")
    request = {"side": side, "manifest": str(manifest), "steps": STEPS}
    found = click_logs.launched("tests.engines.touched", request, tmp_path, 2)
    expected = touched.trained("torch", manifest, STEPS, Topology())
    largest, _ = found.pop("largest"), expected.pop("largest")
    assert 0 < largest < touched.ROWS * 16, "of one table; a batch looks up 16 rows of each"
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-10, atol=1e-13, err_msg=name)
