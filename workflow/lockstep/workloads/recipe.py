"""How a workload is trained: the keys a workload must fill and a study may override."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

from lockstep.errors import UserError, nearest, number_hint

RECIPE: dict[str, Any] = {
    "epochs": 1,
    "global_batch": 64,  # examples a step, over all processes
    "drop_last": False,  # an incomplete last batch is padded and masked, or dropped
    "evaluation_batch": 500,  # examples an evaluation step, over all processes
    "max_steps": 0,  # stop after so many steps; 0 means epochs decide
    "optimizer": {
        "name": "sgd",
        "learning_rate": 0.1,  # at the peak of the schedule
        "momentum": 0.0,
        "nesterov": False,
        "weight_decay": 0.0,  # only where a parameter's `decay` says so
        "decay": "coupled",  # to the gradient, before momentum (L2); or decoupled: to the update
    },
    "schedule": {"name": "constant", "warmup_epochs": 0.0},
    "label_smoothing": 0.0,
    "augment": {  # of training examples (lockstep.workloads.augmentation)
        "name": "none",
        "padding": 4,  # crop_flip: black pixels around the image before it is cropped
        "smallest_area": 0.08,  # resized_crop: share of the image that a crop has at least
    },
    "target": {"metric": "accuracy", "value": 0.9},  # for time to target
    "model": {},  # what the model itself understands
}
"""Every key of a recipe, with the value it has unless a workload or a study says otherwise."""

CHOICES = {
    "optimizer.name": ("sgd",),
    "optimizer.decay": ("coupled", "decoupled"),
    "schedule.name": ("constant", "cosine"),
    "augment.name": ("none", "crop_flip", "resized_crop"),
}
LARGEST = 3.4e38  # of float32
SHARES = ("label_smoothing", "augment.smallest_area", "target.value")  # of one
POSITIVE = (
    "epochs",
    "global_batch",
    "evaluation_batch",
    "optimizer.learning_rate",
    "augment.smallest_area",
)


def recipe(**changes: Any) -> dict[str, Any]:
    """Return the recipe of a workload: the general defaults with `changes`."""
    model = changes.pop("model", {})
    return override(RECIPE, changes, where="recipe") | {"model": copy.deepcopy(model)}


def override(base: dict[str, Any], changes: dict[str, Any], *, where: str) -> dict[str, Any]:
    """Return `base` with `changes` put over it, at every depth.

    Raises:
        UserError: an unknown key, another type than the default's, or a value out of range.
    """
    return _override(base, changes, where, "")


def _override(base: dict[str, Any], changes: dict[str, Any], where: str, key: str) -> dict:
    result = copy.deepcopy(base)
    for name, value in changes.items():
        dotted = f"{key}.{name}" if key else name
        if name not in base:
            raise UserError(f"{where}: unknown key {dotted!r}; {nearest(name, base)}")
        default = base[name]
        if isinstance(default, dict) and isinstance(value, dict):
            result[name] = _override(default, value, where, dotted)
            continue
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value) if abs(value) < LARGEST else math.inf
        if type(value) is not type(default):
            hint = number_hint(value) if isinstance(default, float) else ""
            raise UserError(
                f"{where}.{dotted} is {value!r}; it must be of type {type(default).__name__}, "
                f"as its default {default!r}{hint}"
            )
        _check_value(where, dotted, value)
        result[name] = value
    return result


def _check_value(where: str, key: str, value: Any) -> None:
    if key in CHOICES and value not in CHOICES[key]:
        raise UserError(f"{where}.{key} is {value!r}; {nearest(str(value), CHOICES[key])}")
    if key in POSITIVE and value <= 0:
        raise UserError(f"{where}.{key} is {value!r}; it must be greater than 0")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and not 0 <= value < LARGEST:
        raise UserError(
            f"{where}.{key} is {value!r}; it must be finite, in float32 too, and not negative"
        )
    if key in SHARES and value > 1:
        raise UserError(f"{where}.{key} is {value!r}; it must be at most 1")


def problem(recipe: Mapping[str, Any], metrics: Sequence[str]) -> str | None:
    """Return what of a complete recipe does not go together, or None.

    Args:
        metrics: that the workload's evaluation reports.
    """
    optimizer, metric = recipe["optimizer"], recipe["target"]["metric"]
    if optimizer["nesterov"] and not optimizer["momentum"]:
        return "optimizer.nesterov needs a momentum; set optimizer.momentum, or nesterov: false"
    if metric not in metrics:
        return f"target.metric is {metric!r}; {nearest(metric, metrics)}"
    return None
