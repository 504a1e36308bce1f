"""Each optimizer is one formula: in NumPy, PyTorch and JAX, and as the libraries' own have it."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

from lockstep.engines import jax_optimizer, torch_optimizer
from lockstep.engines.jax_optimizer import Optimizer as Jax
from lockstep.engines.torch_optimizer import Optimizer as Torch
from lockstep.workloads import optimizers, recipe
from lockstep.workloads.contract import Parameter

SHAPES = {"kernel": (4, 3), "bias": (3,), "head": (3, 2)}
DESCRIBED = [
    Parameter(name="kernel", shape=(4, 3)),
    Parameter(name="bias", shape=(3,), decay=False),
    Parameter(name="head", shape=(3, 2), group="head"),
]
STEPS, RATE = 7, 0.1
CASES = {
    "sgd": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1},
    "nesterov": {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    "decoupled": {"name": "sgd", "momentum": 0.9, "weight_decay": 0.1, "decay": "decoupled"},
    "plain": {"name": "sgd"},
    "adamw": {"name": "adamw", "weight_decay": 0.1, "epsilon": 1e-6},
    "uncorrected": {"name": "adamw", "weight_decay": 0.1, "bias_correction": False},
    "lamb": {"name": "lamb", "weight_decay": 0.1, "epsilon": 1e-6},
    "clipped": {"name": "adamw", "clip_norm": 0.5},
    "groups": {
        "name": "adamw",
        "weight_decay": 0.1,
        "groups": {"head": {"rate": 10.0, "decay": 0.0}},
    },
    "adagrad": {"name": "adagrad", "weight_decay": 0.1, "epsilon": 1e-10},
    "rowwise_adagrad": {"groups": {"head": {"name": "rowwise_adagrad", "rate": 0.5}}},
    "each its own": {
        "name": "adamw",
        "beta2": 0.99,
        "clip_norm": 0.5,
        "groups": {
            "head": {"name": "sgd", "momentum": 0.9, "nesterov": True},
            "main": {"beta1": 0.8},
        },
    },
}


def settings_of(name: str) -> dict:
    return recipe.override(recipe.RECIPE, {"optimizer": CASES[name]}, where=name)["optimizer"]


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def values() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.normal(size=shape) for name, shape in SHAPES.items()}


@pytest.fixture
def gradients() -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(1)
    return [{name: random.normal(size=shape) for name, shape in SHAPES.items()}] * STEPS


def numbers(settings: dict, step: int) -> dict[str, float]:
    return {"learning_rate": RATE, **optimizers.scalars(settings, step)}


def by_numpy(settings: dict, values: dict, gradients: list) -> dict[str, np.ndarray]:
    values = dict(values)
    shapes = optimizers.kept(settings, DESCRIBED)
    kept = {
        p.name: {slot: np.zeros(own[p.name]) for slot, own in shapes.items() if p.name in own}
        for p in DESCRIBED
    }
    for step, given in enumerate(gradients):
        factor = optimizers.clip_factor(settings, optimizers.global_norm(given))
        for p in DESCRIBED:
            kept[p.name], change = optimizers.stepped(
                settings,
                optimizers.share(settings, p),
                numbers(settings, step),
                values[p.name],
                factor * given[p.name],
                kept[p.name],
            )
            values[p.name] = values[p.name] + change
    return values


def by_torch(settings: dict, values: dict, gradients: list) -> dict[str, np.ndarray]:
    tensors = {n: torch.tensor(v, requires_grad=True) for n, v in values.items()}
    optimizer = Torch(settings, DESCRIBED, tensors)
    for step, given in enumerate(gradients):
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(given[name])
        optimizer.step(numbers(settings, step))
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def by_jax(settings: dict, values: dict, gradients: list) -> dict[str, np.ndarray]:
    optimizer = Jax(settings, DESCRIBED)
    arrays = {name: jnp.asarray(value) for name, value in values.items()}
    slots = {
        slot: {name: jnp.zeros(shape) for name, shape in own.items()}
        for slot, own in optimizers.kept(settings, DESCRIBED).items()
    }
    for step, given in enumerate(gradients):
        grads = {name: jnp.asarray(gradient) for name, gradient in given.items()}
        arrays, slots = optimizer.step(numbers(settings, step), arrays, grads, slots)
    return {name: np.asarray(array) for name, array in arrays.items()}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", [by_torch, by_jax], ids=["torch", "jax"])
def test_both_frameworks_step_as_the_definition(name, backend, values, gradients) -> None:
    settings = settings_of(name)
    expected = by_numpy(settings, values, gradients)
    for tensor, found in backend(settings, values, gradients).items():
        np.testing.assert_allclose(found, expected[tensor], rtol=1e-13, err_msg=tensor)


def test_adamw_is_pytorchs(values, gradients) -> None:
    settings = settings_of("adamw")
    tensors = {n: torch.tensor(v, requires_grad=True) for n, v in values.items()}
    decays = [[tensors["kernel"], tensors["head"]], [tensors["bias"]]]
    theirs = torch.optim.AdamW(
        [{"params": decays[0], "weight_decay": 0.1}, {"params": decays[1], "weight_decay": 0.0}],
        lr=RATE,
        eps=1e-6,
    )
    for given in gradients:
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(given[name])
        theirs.step()
    for name, found in by_numpy(settings, values, gradients).items():
        np.testing.assert_allclose(found, tensors[name].detach().numpy(), rtol=1e-12)


def test_adagrad_is_pytorchs(values, gradients) -> None:
    settings = {**settings_of("adagrad"), "weight_decay": 0.0}
    tensors = {n: torch.tensor(v, requires_grad=True) for n, v in values.items()}
    theirs = torch.optim.Adagrad(tensors.values(), lr=RATE, eps=1e-10)
    for given in gradients:
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(given[name])
        theirs.step()
    for name, found in by_numpy(settings, values, gradients).items():
        np.testing.assert_allclose(found, tensors[name].detach().numpy(), rtol=1e-12)


def test_a_row_has_one_accumulator_in_rowwise_adagrad(values, gradients) -> None:
    settings = settings_of("rowwise_adagrad")
    assert optimizers.kept(settings, DESCRIBED) == {"row_square_sum": {"head": (3,)}}
    found = by_numpy(settings, values, gradients[:1])["head"]
    gradient = gradients[0]["head"]
    root = np.sqrt((gradient**2).mean(axis=1, keepdims=True))
    expected = values["head"] - 0.5 * RATE * gradient / (root + 1e-8)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_a_groups_optimizer_has_its_own_numbers_and_slots() -> None:
    settings = settings_of("each its own")
    found = optimizers.scalars(settings, 0)
    assert found["correction1"] == pytest.approx(1 / (1 - 0.9))
    assert found["correction1/main"] == pytest.approx(1 / (1 - 0.8))
    assert "correction1/head" not in found
    assert optimizers.own_numbers(found, "main")["correction1"] == found["correction1/main"]
    assert optimizers.own_numbers(found, "head")["correction1"] == found["correction1"]
    assert optimizers.kept(settings, DESCRIBED).keys() == {*optimizers.MOMENTS, "momentum"}


def test_lamb_is_optaxs(values, gradients) -> None:
    settings = settings_of("lamb")
    decays = {p.name: p.decay for p in DESCRIBED}
    theirs = optax.lamb(RATE, weight_decay=0.1, mask=decays)
    arrays = {name: jnp.asarray(value) for name, value in values.items()}
    state = theirs.init(arrays)
    for given in gradients:
        updates, state = theirs.update(given, state, arrays)
        arrays = optax.apply_updates(arrays, updates)
    for name, found in by_numpy(settings, values, gradients).items():
        np.testing.assert_allclose(found, arrays[name], rtol=1e-12)


def test_a_gradient_within_the_bound_is_left_alone(gradients) -> None:
    settings = {**settings_of("clipped"), "clip_norm": 1e3}
    assert optimizers.clip_factor(settings, optimizers.global_norm(gradients[0])) == 1.0


def test_a_tensor_of_zeros_has_the_trust_ratio_one(gradients) -> None:
    settings = settings_of("lamb")
    zeros = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    expected = by_numpy(settings, zeros, gradients[:1])
    for backend in (by_torch, by_jax):
        for name, found in backend(settings, zeros, gradients[:1]).items():
            assert np.isfinite(found).all()
            np.testing.assert_allclose(found, expected[name], rtol=1e-13)


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_the_norm_of_a_large_gradient_is_right_to_the_last_digits(backend: str) -> None:
    gradient = np.random.default_rng(0).standard_normal((4000, 1000)).astype(np.float32)
    factor = optimizers.clip_factor(settings_of("clipped"), optimizers.global_norm({"a": gradient}))
    if backend == "torch":
        clipped = torch.from_numpy(gradient.copy())
        torch_optimizer.clip([clipped], 0.5)
    else:
        clipped = jax_optimizer.clip({"a": jnp.asarray(gradient)}, 0.5)["a"]
    found = np.asarray(clipped[:100], np.float64) / gradient[:100]
    np.testing.assert_allclose(found, factor, rtol=4 * 2.0**-23)
