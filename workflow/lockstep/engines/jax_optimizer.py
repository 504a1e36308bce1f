"""The optimizers of `lockstep.workloads.optimizers` in JAX."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from lockstep.workloads import optimizers
from lockstep.workloads.contract import Parameter

Arrays = dict[str, Array]
Numbers = Mapping[str, Array]


class Optimizer:
    """A recipe's optimizer: pure functions of arrays by neutral name.

    Attributes:
        slots: names of the parameters that each slot is of.
    """

    def __init__(self, settings: Mapping[str, Any], described: Sequence[Parameter]) -> None:
        """Resolve what of it is each parameter's.

        Args:
            settings: the recipe's `optimizer`.
            described: the trained parameters.
        """
        self.settings = settings
        self.slots = {n: tuple(own) for n, own in optimizers.kept(settings, described).items()}
        self.shares = {p.name: optimizers.share(settings, p) for p in described}

    def step(
        self, numbers: Numbers, values: Arrays, grads: Arrays, slots: Mapping[str, Arrays]
    ) -> tuple[Arrays, dict[str, Arrays]]:
        """Return all values and slots after a step.

        Args:
            numbers: of the step: `learning_rate` and `optimizers.scalars`, ``()``.
        """
        if self.settings["clip_norm"]:
            grads = clip(grads, self.settings["clip_norm"])
        after: dict[str, Arrays] = {slot: {} for slot in self.slots}
        changed = {}
        for name, value in values.items():
            share = self.shares[name]
            settings = optimizers.of_group(self.settings, share.group)
            own = {slot: slots[slot][name] for slot in optimizers.slots(settings)}
            given = optimizers.own_numbers(numbers, share.group)
            change, kept = update(settings, share.decay, given, value, grads[name], own)
            rate = numbers["learning_rate"]
            changed[name] = value - (rate if share.rate == 1 else rate * share.rate) * change
            for slot, array in kept.items():
                after[slot][name] = array
        return changed, after


def clip(grads: Arrays, bound: float) -> Arrays:
    """Bound the norm of all gradients together."""
    squares = [jnp.sum(jnp.square(grad)) for grad in grads.values()]
    norm = jnp.sqrt(functools.reduce(jnp.add, squares))
    factor = jnp.minimum(bound / (norm + optimizers.CLIP_EPSILON), 1.0)
    return {name: grad * factor for name, grad in grads.items()}


def update(
    settings: Mapping[str, Any],
    decay: float,
    numbers: Numbers,
    value: Array,
    grad: Array,
    kept: Arrays,
) -> tuple[Array, Arrays]:
    """Return what, times the learning rate, is subtracted from a value; and its slots."""
    if settings["name"] == "sgd":
        return _sgd(settings, decay, value, grad, kept)
    if settings["name"] in ("adagrad", "rowwise_adagrad"):
        return _adagrad(settings, decay, value, grad, kept)
    beta1, beta2 = settings["beta1"], settings["beta2"]
    first = beta1 * kept["first_moment"] + (1 - beta1) * grad
    second = beta2 * kept["second_moment"] + (1 - beta2) * grad * grad
    scale = jnp.sqrt(second) * numbers["correction2"] + settings["epsilon"]
    result = first * numbers["correction1"] / scale
    if decay:
        result = result + decay * value
    if settings["name"] == "lamb":
        norms = [jnp.sqrt(jnp.sum(jnp.square(x))) for x in (value, result)]
        both = (norms[0] > 0) & (norms[1] > 0)
        result = result * jnp.where(both, norms[0] / jnp.where(both, norms[1], 1.0), 1.0)
    return result, {"first_moment": first, "second_moment": second}


def _sgd(
    settings: Mapping[str, Any], decay: float, value: Array, grad: Array, kept: Arrays
) -> tuple[Array, Arrays]:
    coupled = settings["decay"] == "coupled"
    if decay and coupled:
        grad = grad + decay * value
    result, after = grad, {}
    if settings["momentum"]:
        momentum = settings["momentum"] * kept["momentum"] + grad
        result, after = momentum, {"momentum": momentum}
        if settings["nesterov"]:
            result = grad + settings["momentum"] * momentum
    if decay and not coupled:
        result = result + decay * value
    return result, after


def _adagrad(
    settings: Mapping[str, Any], decay: float, value: Array, grad: Array, kept: Arrays
) -> tuple[Array, Arrays]:
    ((slot, total),) = kept.items()
    square = jnp.square(grad)
    if slot == optimizers.ROW_SQUARES:
        square = square.reshape(len(grad), -1).mean(axis=1)
    total = total + square
    scale = jnp.sqrt(total) + settings["epsilon"]
    if slot == optimizers.ROW_SQUARES:
        scale = scale.reshape(-1, *[1] * (grad.ndim - 1))
    result = grad / scale
    return (result + decay * value if decay else result), {slot: total}
