"""How a workload is trained: the keys a workload must fill and a study may override."""

import copy
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lockstep.errors import UserError, nearest, number_hint, shown

if TYPE_CHECKING:  # it needs NumPy, which checking a config does not
    from lockstep.workloads.contract import Workload

RECIPE: dict[str, Any] = {
    "epochs": 1,
    "global_batch": 64,  # examples a step, over all processes
    "drop_last": False,  # an incomplete last batch is padded and masked, or dropped
    "evaluation_batch": 500,  # examples an evaluation step, over all processes
    "evaluate_every": 0,  # steps between evaluations; 0: at the end of each epoch
    "max_steps": 0,  # stop after so many steps; 0 means epochs decide
    "optimizer": {
        "name": "sgd",
        "learning_rate": 0.1,  # at the peak of the schedule
        "momentum": 0.0,  # of sgd, as the next one
        "nesterov": False,
        "beta1": 0.9,  # of adamw and lamb, as the next three
        "beta2": 0.999,
        "epsilon": 1e-8,
        "bias_correction": True,
        "weight_decay": 0.0,  # only where a parameter's `decay` says so
        "decay": "coupled",  # of sgd: to the gradient, before momentum (L2); or decoupled
        "clip_norm": 0.0,  # bound of the norm of all gradients; 0 for none
        "groups": {},  # of parameters: {NAME: {rate: 1.0, decay: 1.0}}, factors
    },
    "schedule": {  # constant, or falling to zero at the end: linear or cosine
        "name": "constant",
        "warmup_epochs": 0.0,
        "warmup_steps": 0,  # of these two at most one
    },
    "accumulation": 1,  # micro-batches whose gradients make a step
    "label_smoothing": 0.0,
    "augment": {  # of training examples (lockstep.workloads.augmentation)
        "name": "none",
        "padding": 4,  # crop_flip: black pixels around the image before it is cropped
        "smallest_area": 0.08,  # resized_crop: share of the image that a crop has at least
    },
    "target": {"metric": "accuracy", "value": 0.9},  # for time to target
    "start": "",  # a safetensors file to start from; empty for drawn weights
    "model": {},  # what the model itself understands
}
"""Every key of a recipe, with the value it has unless a workload or a study says otherwise."""

CHOICES = {
    "optimizer.name": ("sgd", "adamw", "lamb"),
    "optimizer.decay": ("coupled", "decoupled"),
    "schedule.name": ("constant", "linear", "cosine"),
    "augment.name": ("none", "crop_flip", "resized_crop"),
}
KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    list: "a list",
    dict: "keys with values",
}
LARGEST = 3.4e38  # of float32
GROUP = {"rate": 1.0, "decay": 1.0}
SHARES = ("label_smoothing", "augment.smallest_area", "optimizer.beta1", "optimizer.beta2")
POSITIVE = (
    "epochs",
    "global_batch",
    "evaluation_batch",
    "accumulation",
    "optimizer.learning_rate",
    "optimizer.epsilon",
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
        if key == "optimizer.groups":
            base = {**base, name: base.get(name, GROUP)}
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
                f"{where}.{dotted} is {shown(value)}; write {KINDS[type(default)]}, such as its "
                f"default {shown(default)}{hint}"
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


def problem(recipe: Mapping[str, Any], workload: "Workload") -> str | None:
    """Return what of a complete recipe does not go together, or None."""
    optimizer, target = recipe["optimizer"], recipe["target"]
    if optimizer["nesterov"] and not optimizer["momentum"]:
        return "optimizer.nesterov needs a momentum; set optimizer.momentum, or nesterov: false"
    for beta in ("beta1", "beta2"):
        if optimizer[beta] >= 1:
            return f"optimizer.{beta} is {optimizer[beta]!r}; it must be below 1"
    groups = {p.group for p in workload.parameters(recipe["model"])}
    for name in optimizer["groups"]:
        if name not in groups:
            return f"optimizer.groups: {name!r} is no group of parameters; {nearest(name, groups)}"
    if all(recipe["schedule"][key] for key in ("warmup_epochs", "warmup_steps")):
        return "schedule has warmup_epochs and warmup_steps; set one of them"
    if recipe["global_batch"] % recipe["accumulation"]:
        return (
            f"accumulation is {recipe['accumulation']}, which does not divide global_batch "
            f"({recipe['global_batch']})"
        )
    if recipe["start"] and workload.start is None:
        return f"start is {recipe['start']!r}, but {workload.name} starts from drawn weights alone"
    metrics = {metric.name: metric for metric in workload.metrics}
    if target["metric"] not in metrics:
        return f"target.metric is {target['metric']!r}; {nearest(target['metric'], metrics)}"
    if metrics[target["metric"]].unit == "share" and target["value"] > 1:
        return f"target.value is {target['value']!r}; it must be at most 1"
    return None
