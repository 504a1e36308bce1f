"""A recommender climbs the ladder, and each way to get it quietly wrong is named."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from lockstep import auc, engines, workloads
from lockstep.datasets.reader import Reader
from lockstep.engines import torch_optimizer, torch_tables
from lockstep.parity import compare
from lockstep.training.feed import SharedFeed
from lockstep.workloads import optimizers, weights
from lockstep.workloads.dlrm import spec, torch_model
from tests import click_logs
from tests.conftest import ROOT
from tests.parity import climber
from tests.parity.residual import verdict

STEPS = 4
DENSE = {"tables": {"name": "sgd", "momentum": 0.9, "update": "dense"}}
Trace = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Climb:
    """Climbs the ladder with a small recommender."""

    folder: Path
    caches: Path

    def __call__(
        self,
        side: str,
        steps: int = STEPS,
        precision: str = "float64",
        processes: int = 1,
        **changes: object,
    ) -> Trace:
        """Return a trace, by as many processes."""
        entry = click_logs.entry(**changes)
        state = weights.initial(workloads.spec("dlrm"), entry["model"], 0)
        initial = self.folder / f"{weights.digest(state)}.safetensors"
        weights.save(initial, state)
        request = {
            "recipe": {"workload": "dlrm", **entry},
            "variant": click_logs.variant(side, precision),
            "manifest": str(click_logs.prepared(self.folder)),
            "seed": 0,
            "initial": str(initial),
            "batches": 1,
            "caches": str(self.caches),
            "window_steps": 25,
            "steps": steps,
        }
        return climber.climbed(request, self.folder, processes, threads=1)


@pytest.fixture(scope="module")
def climb(tmp_path_factory: pytest.TempPathFactory, caches: Path) -> Iterator[Climb]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}/workflow:{ROOT}")
        yield Climb(tmp_path_factory.mktemp("dlrm"), caches)


@pytest.fixture(scope="module")
def reference(climb: Climb) -> Trace:
    """The sound JAX side."""
    return climb("jax")


@pytest.fixture(scope="module")
def dense(climb: Climb) -> Trace:
    """The same with momentum on tables, whose update is of all rows."""
    return climb("jax", optimizer={"groups": DENSE})


def test_both_frameworks_are_the_same(climb: Climb, reference: Trace) -> None:
    trace = climb("torch")
    assert verdict(trace, reference) == ("none", None)
    rungs = compare.compare(trace, reference, ["float64"])
    assert max(rung.value for rung in rungs) < 1e-12
    assert {"float64/evaluation/auc", "float64/evaluation/normalised_entropy"} <= set(trace)
    assert trace["float64/step/row_square_sum/tables.0.embedding"].shape == (100,)


@pytest.mark.slow
def test_a_compiled_step_is_the_same_with_tables(climb: Climb, reference: Trace) -> None:
    assert verdict(climb("torch-compile"), reference) == ("none", None)


def test_rows_that_no_step_looked_up_are_as_they_were(climb: Climb, reference: Trace) -> None:
    manifest = click_logs.prepared(climb.folder)
    feed = SharedFeed(click_logs.job(manifest, "torch"), Reader(manifest, "train"), 0)
    ids = feed.window(0, 1).batch["ids"][0]
    for trace in (climb("torch"), reference):
        for column in range(click_logs.LOOKUPS):
            key = f"param/tables.{column}.embedding"
            others = np.setdiff1d(np.arange(100), ids[:, column])
            before, after = (trace[f"float64/{rung}/{key}"] for rung in ("weights", "step"))
            assert (before[others] == after[others]).all()


@pytest.mark.slow
def test_three_hundred_steps_stay_the_same(climb: Climb) -> None:
    traces = [climb(side, steps=300) for side in ("torch", "jax")]
    assert verdict(*traces) == ("none", None)
    np.testing.assert_allclose(*(t["float64/steps/loss"] for t in traces), rtol=1e-11)


@pytest.mark.slow
def test_two_processes_make_the_same_steps(climb: Climb) -> None:
    traces = [climb(side, steps=20, processes=2) for side in ("torch", "jax")]
    assert verdict(*traces) == ("none", None)
    alone = climb("torch", steps=20)
    np.testing.assert_allclose(
        traces[0]["float64x2/steps/loss"], alone["float64/steps/loss"], rtol=1e-11
    )


@pytest.mark.slow
def test_a_hundred_steps_in_float32_stay_within_the_fixed_tolerance(climb: Climb) -> None:
    traces = [climb(side, steps=100, precision="float32") for side in ("torch", "jax")]
    np.testing.assert_allclose(*(t["float32/steps/loss"] for t in traces), rtol=1e-5)


@pytest.mark.slow
def test_other_optimizers_climb_too(climb: Climb) -> None:
    groups = {"tables": {"name": "adagrad", "update": "touched_rows"}}
    optimizer = {"name": "adamw", "learning_rate": 0.01, "groups": groups}
    traces = [climb(side, steps=30, optimizer=optimizer) for side in ("torch", "jax")]
    assert verdict(*traces) == ("none", None)


def test_a_run_goes_on_in_the_other_framework(climb: Climb) -> None:
    manifest = click_logs.prepared(climb.folder)

    def started(side: str, state: weights.State):
        job = click_logs.job(manifest, side, climb.caches)
        engine = engines.start(job)
        engine.load(state)
        return engine, SharedFeed(job, Reader(manifest, "train"), 0)

    initial = weights.initial(workloads.spec("dlrm"), click_logs.entry()["model"], 0)
    whole, feed = started("torch", initial)
    for first in (0, 12):
        expected, _ = whole.fetch(whole.train(feed.window(first, 12)))
    one, feed = started("jax", initial)
    one.fetch(one.train(feed.window(0, 12)))
    two, feed = started("torch", one.state())
    found, _ = two.fetch(two.train(feed.window(12, 12)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


# Faults --------------------------------------------------------------------------------------


def broken(climb: Climb, reference: Trace, **changes: object) -> tuple[str, str | None]:
    return verdict(climb("torch", **changes), reference)


def test_a_triangle_with_its_diagonal(climb, reference, monkeypatch) -> None:
    # As many pairs as without it, so that the shapes fit: the diagonal for the last row.
    def indices(rows, columns, offset, device=None):
        one, other = sound(rows, columns, 0, device=device)
        count = rows * (rows - 1) // 2
        return torch.stack([one[:count], other[:count]])

    sound = torch.tril_indices
    monkeypatch.setattr(torch, "tril_indices", indices)
    assert broken(climb, reference) == ("layers", "top.0")


def test_pairs_of_the_upper_triangle(climb, reference, monkeypatch) -> None:
    monkeypatch.setattr(
        torch, "tril_indices", lambda n, m, _, device=None: torch.triu_indices(n, m, 1)
    )
    assert broken(climb, reference) == ("layers", "top.0")


def test_an_id_that_is_clamped(climb, reference, monkeypatch) -> None:
    sound = functional.embedding
    monkeypatch.setattr(functional, "embedding", lambda ids, table: sound(ids.clamp(max=9), table))
    assert broken(climb, reference)[0] == "layers"


def test_an_empty_id_that_gives_zero(climb, reference, monkeypatch) -> None:
    def forward(self, ids):
        return functional.embedding(ids, self.embedding) * (ids != 0)[..., None]

    monkeypatch.setattr(torch_model.Table, "forward", forward)
    assert broken(climb, reference)[0] in ("layers", "loss")


def test_squares_that_are_summed_before_duplicates(climb, reference, monkeypatch) -> None:
    """Each look-up of a row has a square of its own: of a batch with duplicates another sum."""
    sound = torch_tables.Tables.take

    def take(self, batch, slots):
        result = sound(self, batch, slots)
        self.counts = {
            name: torch.bincount(result["places/ids"][:, k], minlength=len(part)).clamp(min=1)
            for k, (name, part) in enumerate(self.parts.items())
        }
        remembered.update(self.counts)
        return result

    def adagrad(settings, decay, values, grads, kept):
        if settings["name"] != "rowwise_adagrad":
            return exact(settings, decay, values, grads, kept)
        shares = [g / c.sqrt()[:, None] for g, c in zip(grads, remembered.values())]
        exact(settings, decay, values, shares, kept)
        roots = [a.sqrt()[:, None] + settings["epsilon"] for a in kept[optimizers.ROW_SQUARES]]
        return [g / root for g, root in zip(grads, roots)]

    remembered: dict[str, torch.Tensor] = {}
    exact = torch_optimizer._adagrad
    monkeypatch.setattr(torch_tables.Tables, "take", take)
    monkeypatch.setattr(torch_optimizer, "_adagrad", adagrad)
    assert broken(climb, reference) == ("step", "param/tables.0.embedding")


def lazily(sound):
    """An optimizer that leaves the state of rows alone whose gradient is zero."""

    def update(settings, decay, numbers, values, grads, kept):
        before = {slot: [own.clone() for own in tensors] for slot, tensors in kept.items()}
        change = sound(settings, decay, numbers, values, grads, kept)
        change = [c.clone() for c in change]
        for k, grad in enumerate(grads):
            still = (grad == 0).flatten(1).all(1) if grad.dim() > 1 else grad == 0
            change[k][still] = 0
            for slot, tensors in kept.items():
                tensors[k][still] = before[slot][k][still]
        return change

    return update


def test_momentum_of_the_touched_rows_alone(climb, dense, monkeypatch) -> None:
    assert broken(climb, dense, optimizer={"groups": DENSE}) == ("none", None)
    monkeypatch.setattr(torch_optimizer, "update", lazily(torch_optimizer.update))
    assert broken(climb, dense, optimizer={"groups": DENSE})[0] in ("steps", "final")


@pytest.mark.slow
def test_sparse_adam_for_adam(climb, monkeypatch) -> None:
    changes = {"optimizer": {"groups": {"tables": {"name": "adamw", "update": "dense"}}}}
    expected = climb("jax", **changes)
    assert broken(climb, expected, **changes) == ("none", None)
    monkeypatch.setattr(torch_optimizer, "update", lazily(torch_optimizer.update))
    assert broken(climb, expected, **changes)[0] in ("steps", "final")


def test_an_area_of_probabilities(climb, reference, monkeypatch) -> None:
    def finish(sums, columns, recipe):
        found = sound(sums, columns, recipe)
        chances = (1 / (1 + np.exp(-columns["logit"]))).astype(np.float32).astype(np.float16)
        return {**found, "auc": auc.area(chances, columns["click"])}

    sound = spec.WORKLOAD.finish
    changed = dataclasses.replace(spec.WORKLOAD, finish=finish)
    monkeypatch.setattr(spec, "WORKLOAD", changed)
    assert broken(climb, reference) == ("evaluation", "auc")
