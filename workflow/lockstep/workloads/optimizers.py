"""Optimizers by name: what state each keeps, its numbers by step, and its formula in NumPy.

Both engines write the formulas out; the ladder holds a step of theirs to this module. In all of
them g is the gradient, multiplied by min(1, clip_norm / (norm + 1e-6)) where `clip_norm` is not 0,
and norm is that of all trained parameters' gradients together; lr is the step's learning rate times
the group's rate; d is `weight_decay` times the group's decay, 0 where a parameter does not decay.
A group of parameters may have another optimizer, or other numbers of it (`of_group`).

`sgd`     with momentum b; `decay: coupled` adds d p to g first (L2 regularisation), `decoupled` to
          the update (Loshchilov and Hutter, Decoupled weight decay regularization, 2019):

              m = b m + g;   u = g + b m (nesterov) or m;   p = p - lr u

`adamw`   Adam with decoupled decay (Kingma and Ba, 2015; Loshchilov and Hutter, 2019):

              m = b1 m + (1 - b1) g;   v = b2 v + (1 - b2) g²
              u = (m c1) / (sqrt(v) c2 + epsilon) + d p;   p = p - lr u

          c1 = 1 / (1 - b1^t) and c2 = 1 / sqrt(1 - b2^t) in step t, counted from 1; without
          `bias_correction` both are 1. They come from the host, in float64.

`lamb`    the same u, times |p| / |u| of each tensor, 1 where either is zero (You et al., Large
          batch optimization for deep learning, 2020).

`adagrad` without decay of its own, a from 0 (Duchi, Hazan and Singer, Adaptive subgradient methods
          for online learning and stochastic optimization, 2011):

              a = a + g²;   u = g / (sqrt(a) + epsilon) + d p;   p = p - lr u

`rowwise_adagrad`  the same with one a for each row of a table, to which the mean of g² over the row
          is added (Mudigere et al., Software-hardware co-design for fast and scalable training of
          deep learning recommendation models, 2022). Equal rows of a batch are summed in g first.

The update of a group is `dense`, or `touched_rows`: of its tables only the rows that a batch looks
up are changed (`Parameter.ids`). That is allowed where it is the same mathematics: where a row
whose gradient is zero stays as it is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lockstep.workloads.contract import Parameter
from lockstep.workloads.recipe import GROUP_MAY

NAMES = ("sgd", "adamw", "lamb", "adagrad", "rowwise_adagrad")
MOMENTS = ("first_moment", "second_moment")
SQUARES, ROW_SQUARES = "square_sum", "row_square_sum"
UNUSED = {
    "sgd": ("beta1", "beta2", "epsilon"),
    "adamw": ("momentum",),
    "lamb": ("momentum",),
    "adagrad": ("momentum", "beta1", "beta2"),
    "rowwise_adagrad": ("momentum", "beta1", "beta2"),
}
"""The numbers of a recipe that an optimizer does not read."""
NOT_NEGATIVE = ("second_moment", SQUARES, ROW_SQUARES)
CLIP_EPSILON = 1e-6  # as PyTorch's clip_grad_norm_ has it

Settings = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]


def of_group(settings: Settings, group: str) -> Settings:
    """Return the optimizer of a group of parameters."""
    given = settings["groups"].get(group, {})
    return {**settings, **{key: given[key] for key in GROUP_MAY if key in given}}


def touched(settings: Settings, parameter: Parameter) -> bool:
    """Whether only those rows of a parameter are changed that a batch looks up."""
    return settings["groups"].get(parameter.group, {}).get("update") == "touched_rows"


def slots(settings: Settings, group: str = "") -> tuple[str, ...]:
    """Return the names of what an optimizer keeps of each trained parameter of a group."""
    settings = of_group(settings, group)
    if settings["name"] == "sgd":
        return ("momentum",) if settings["momentum"] else ()
    return {"adagrad": (SQUARES,), "rowwise_adagrad": (ROW_SQUARES,)}.get(settings["name"], MOMENTS)


def kept(
    settings: Settings, described: Iterable[Parameter]
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shapes of all that is kept, by slot and name of the (trained) parameter."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for p in described:
        for slot in slots(settings, p.group):
            found.setdefault(slot, {})[p.name] = p.shape[:1] if slot == ROW_SQUARES else p.shape
    return found


def scalars(settings: Settings, step: int) -> dict[str, float]:
    """Return an optimizer's numbers of a step (from 0), beside the learning rate.

    A group's own have its name behind them, ``correction1/GROUP``: see `own_numbers`.
    """
    found = _corrections(settings, step)
    for group, given in settings["groups"].items():
        if any(key in given for key in GROUP_MAY):
            own = _corrections(of_group(settings, group), step)
            found |= {f"{name}/{group}": value for name, value in own.items()}
    return found


def _corrections(settings: Settings, step: int) -> dict[str, float]:
    if settings["name"] not in ("adamw", "lamb"):
        return {}
    if not settings["bias_correction"]:
        return {"correction1": 1.0, "correction2": 1.0}
    first, second = (1.0 - settings[beta] ** (step + 1) for beta in ("beta1", "beta2"))
    return {"correction1": 1.0 / first, "correction2": 1.0 / second**0.5}


def own_numbers(numbers: Mapping[str, Any], group: str) -> dict[str, Any]:
    """Return the numbers of a step as a group of parameters has them."""
    parts = {name: name.partition("/") for name in numbers}
    return {
        parts[name][0]: numbers[name]
        for wanted in ("", group)
        for name in numbers
        if parts[name][2] == wanted
    }


@dataclass(frozen=True)
class Share:
    """What of a step's learning rate and of the weight decay is a parameter's.

    Attributes:
        rate: factor of the learning rate.
        decay: weight decay; 0 for none.
        group: whose optimizer it has.
    """

    rate: float
    decay: float
    group: str = ""


def share(settings: Settings, parameter: Parameter) -> Share:
    """Return the share of a trained parameter."""
    group = settings["groups"].get(parameter.group, {})
    decay = settings["weight_decay"] * group.get("decay", 1.0) if parameter.decay else 0.0
    return Share(group.get("rate", 1.0), decay, parameter.group)


def _along_rows(table: np.ndarray) -> tuple[Any, ...]:
    """Return the index by which a number for each row goes with a table's elements."""
    return (slice(None), *[None] * (table.ndim - 1))


def global_norm(gradients: Arrays) -> float:
    """Return the norm of all gradients together, summed in float64."""
    total = sum(float(np.sum(np.square(g, dtype=np.float64))) for g in gradients.values())
    return total**0.5


def clip_factor(settings: Settings, norm: float) -> float:
    """Return what all gradients are multiplied by; `norm` is their `global_norm`."""
    if not settings["clip_norm"]:
        return 1.0
    return min(1.0, settings["clip_norm"] / (norm + CLIP_EPSILON))


def stepped(
    settings: Settings,
    share: Share,
    numbers: Mapping[str, float],
    value: np.ndarray,
    gradient: np.ndarray,
    kept: Arrays,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return a tensor's slots after a step, and what its value changes by, float64.

    Args:
        numbers: of the step: `learning_rate` and `scalars`.
        value: before the step.
        gradient: clipped.
        kept: its slots before the step.
    """
    settings, numbers = of_group(settings, share.group), own_numbers(numbers, share.group)
    value, gradient = value.astype(np.float64), gradient.astype(np.float64)
    kept = {name: array.astype(np.float64) for name, array in kept.items()}
    rate = numbers["learning_rate"] * share.rate
    if settings["name"] == "sgd":
        coupled = settings["decay"] == "coupled"
        if coupled:
            gradient = gradient + share.decay * value
        after, update = {}, gradient
        if settings["momentum"]:
            momentum = settings["momentum"] * kept["momentum"] + gradient
            after = {"momentum": momentum}
            update = momentum
            if settings["nesterov"]:
                update = gradient + settings["momentum"] * momentum
        if not coupled:
            update = update + share.decay * value
        return after, -rate * update
    if settings["name"] in ("adagrad", "rowwise_adagrad"):
        (slot,) = slots(settings)
        square = gradient**2
        scale: Any = np.s_[...]
        if slot == ROW_SQUARES:
            square, scale = square.reshape(len(square), -1).mean(axis=1), _along_rows(gradient)
        total = kept[slot] + square
        update = gradient / (np.sqrt(total)[scale] + settings["epsilon"]) + share.decay * value
        return {slot: total}, -rate * update
    beta1, beta2 = settings["beta1"], settings["beta2"]
    first = beta1 * kept["first_moment"] + (1 - beta1) * gradient
    second = beta2 * kept["second_moment"] + (1 - beta2) * gradient**2
    scaled = np.sqrt(second) * numbers["correction2"] + settings["epsilon"]
    update = first * numbers["correction1"] / scaled + share.decay * value
    if settings["name"] == "lamb":
        norms = np.linalg.norm(value), np.linalg.norm(update)
        update = update * (norms[0] / norms[1] if all(norms) else 1.0)
    return {"first_moment": first, "second_moment": second}, -rate * update
