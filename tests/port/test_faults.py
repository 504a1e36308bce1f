"""A few of the suite's faults and harmless rewrites; `make drill-port` runs all of them."""

from pathlib import Path

import equinox
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from lockstep.port import check, pair, tap
from tests.port import faults

SOME = (
    "padding looked at",
    "embeddings not scaled",
    "clipping's 1e-6",
)
SOUND = ("one product",)


def _named(known: tuple[faults.Fault, ...], names: tuple[str, ...]) -> list:
    return [pytest.param(f, id=f"{f.pair}: {f.name}") for f in known if f.name in names]


@pytest.mark.parametrize("fault", _named(faults.FAULTS, SOME))
def test_the_first_value_and_the_cause_are_named(fault: faults.Fault) -> None:
    assert faults.found(faults.run(fault)) == (fault.first, fault.kind)


@pytest.mark.parametrize("fault", _named(faults.HARMLESS, SOUND))
def test_a_harmless_rewrite_is_not_accused(fault: faults.Fault) -> None:
    outcome = faults.run(fault)
    assert outcome.passed
    assert all(value.status == "equal" for finding in outcome.findings for value in finding.values)


def test_gradients_are_compared_in_the_layouts_of_the_map() -> None:
    fault = faults.Fault("encoder", "sound", {})
    described = faults.described(fault)
    prepared = check.prepare(described)
    outcome = check.check(prepared, check.Options(precisions=("float64",), gradients=True))
    found = outcome.findings[-1]
    assert found.name == "gradients, float64" and found.passed
    assert len(found.values) == len(prepared.lines)


class Normed(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.norm = nnx.BatchNorm(3, momentum=0.99, epsilon=1e-5, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.left_on = False

    def __call__(self, x):
        return self.drop(self.norm(x), deterministic=not self.left_on)


class InTorch(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)

    def forward(self, x):
        return tap("end", self.norm(x))


@pytest.mark.parametrize("left_on", [False, True])
def test_training_shows_the_momentum_and_dropout_that_is_left_on_is_told(left_on: bool) -> None:
    model = Normed()
    model.left_on = left_on
    given = {
        "torch_model": InTorch(),
        "jax_model": model,
        "batch": np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32),
        "jax_call": lambda m, x: m.norm(x) if not left_on else tap("end", m(x)),
    }
    prepared = check.prepare(pair.described(Path("pair.py"), given))
    options = check.Options(precisions=("float64",), train=not left_on)
    named = faults.found(check.check(prepared, options))
    momentum = ("statistics norm.running_mean", "momentum")
    assert named == (("end", "dropout") if left_on else momentum)


class Placed(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.places, self.fc = torch.nn.Embedding(5, 3), torch.nn.Linear(3, 4)

    def forward(self, x):
        return self.fc(torch.nn.functional.gelu(x + self.places(torch.arange(5)[None])))


class PlacedInJax(nnx.Module):
    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.places, self.fc = nnx.Embed(5, 3, rngs=rngs), nnx.Linear(3, 4, rngs=rngs)

    def __call__(self, x):
        places = jnp.broadcast_to(jnp.arange(5), x.shape[:2])
        return self.fc(nnx.gelu(x + self.places(places)))


def test_what_one_side_computes_once_for_all_examples_is_not_accused() -> None:
    given = {
        "torch_model": Placed(),
        "jax_model": PlacedInJax(),
        "batch": np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32),
    }
    prepared = check.prepare(pair.described(Path("pair.py"), given))
    outcome = check.check(prepared, check.Options(precisions=("float64",)))
    assert faults.found(outcome) == ("input of fc", "GELU")
    assert outcome.findings[0].values[0].layout == "the same for every example"


class Small(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.fc = torch.nn.LayerNorm(3), torch.nn.Linear(3, 4)

    def forward(self, x):
        return self.fc(torch.nn.functional.gelu(self.norm(x)))


def one_example(p, x):
    """A function of one example, as Equinox's modules are."""
    x = (x - x.mean()) / jnp.sqrt(x.var() + 1e-6)
    x = tap("norm", x * p["norm"]["weight"] + p["norm"]["bias"])
    return p["fc"]["weight"] @ nnx.gelu(x, approximate=False) + p["fc"]["bias"]


@pytest.mark.parametrize(("mapped", "first"), [(True, "norm"), (False, "output")])
def test_a_tap_is_seen_inside_of_vmap_and_one_for_each_example_is_left_out(mapped, first) -> None:
    given = {
        "torch_model": Small(),
        "jax_model": lambda p, x: jnp.stack([one_example(p, row) for row in x]),
        "jax_params": {
            "norm": {"weight": jnp.ones(3), "bias": jnp.zeros(3)},
            "fc": {"weight": jnp.zeros((4, 3)), "bias": jnp.zeros(4)},
        },
        "batch": np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32),
    }
    if mapped:
        given["jax_model"] = lambda p, x: jax.vmap(lambda row: one_example(p, row))(x)
    prepared = check.prepare(pair.described(Path("pair.py"), given))
    outcome = check.check(prepared, check.Options(precisions=("float64",)))
    assert faults.found(outcome) == (first, "epsilon")


class Layers(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(3, 8), torch.nn.Linear(8, 2)

    def forward(self, x):
        return self.second(torch.nn.functional.gelu(self.first(x)))


class InEquinox(equinox.Module):
    first: equinox.nn.Linear
    second: equinox.nn.Linear

    def __init__(self) -> None:
        keys = jax.random.split(jax.random.key(0))
        self.first = equinox.nn.Linear(3, 8, key=keys[0])
        self.second = equinox.nn.Linear(8, 2, key=keys[1])

    def __call__(self, x):
        one = lambda row: self.second(jax.nn.gelu(tap("first", self.first(row))))  # noqa: E731
        return jax.vmap(one)(x)


def test_a_module_of_equinox_is_its_own_tree_of_parameters() -> None:
    given = {
        "torch_model": Layers(),
        "jax_model": InEquinox(),
        "batch": np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32),
    }
    prepared = check.prepare(pair.described(Path("pair.py"), given))
    outcome = check.check(prepared, check.Options(precisions=("float64",)))
    assert faults.found(outcome) == ("output", "GELU")
