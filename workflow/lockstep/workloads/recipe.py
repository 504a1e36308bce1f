"""How a workload is trained: the keys a workload must fill and a study may override."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lockstep.errors import UserError, nearest, number_hint, shown

if TYPE_CHECKING:  # it needs NumPy, which checking a config does not
    from lockstep.workloads.contract import Parameter, Workload

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
        "epsilon": 1e-8,  # of adagrad and rowwise_adagrad, too
        "bias_correction": True,
        "weight_decay": 0.0,  # only where a parameter's `decay` says so
        "decay": "coupled",  # of sgd: to the gradient, before momentum (L2); or decoupled
        "clip_norm": 0.0,  # bound of the norm of all gradients; 0 for none
        "groups": {},  # of parameters: {NAME: {rate: 1.0, decay: 1.0, update: dense}}, see GROUP
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
    "optimizer.name": ("sgd", "adamw", "lamb", "adagrad", "rowwise_adagrad"),
    "optimizer.decay": ("coupled", "decoupled"),
    "optimizer.update": ("dense", "touched_rows"),
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
GROUP = {"rate": 1.0, "decay": 1.0, "update": "dense"}
"""What a group of parameters has: factors of learning rate and weight decay, and whether a step may
change every row of its tables (dense) or those alone that its batch looks up (touched_rows)."""
GROUP_MAY = ("name", "momentum", "nesterov", "beta1", "beta2", "epsilon", "bias_correction")
"""What else a group may have: its own optimizer, or other numbers of the recipe's."""
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
    in_group = key.startswith("optimizer.groups.")
    if in_group:
        base = {**{name: RECIPE["optimizer"][name] for name in GROUP_MAY}, **base}
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
        # A group's `decay` is a factor, all else has the optimizer's own rules.
        rule = f"optimizer.{name}" if in_group and name != "decay" else dotted
        _check_value(where, dotted, value, rule)
        result[name] = value
    return result


def _check_value(where: str, key: str, value: Any, rule: str) -> None:
    if rule in CHOICES and value not in CHOICES[rule]:
        raise UserError(f"{where}.{key} is {value!r}; {nearest(str(value), CHOICES[rule])}")
    if rule in POSITIVE and value <= 0:
        raise UserError(f"{where}.{key} is {value!r}; it must be greater than 0")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and not 0 <= value < LARGEST:
        raise UserError(
            f"{where}.{key} is {value!r}; it must be finite, in float32 too, and not negative"
        )
    if rule in SHARES and value > 1:
        raise UserError(f"{where}.{key} is {value!r}; it must be at most 1")


def problem(recipe: Mapping[str, Any], workload: "Workload") -> str | None:
    """Return what of a complete recipe does not go together, or None."""
    wrong = _optimizer_problem(recipe["optimizer"], workload.parameters(recipe["model"]))
    if wrong:
        return wrong
    if all(recipe["schedule"][key] for key in ("warmup_epochs", "warmup_steps")):
        return "schedule has warmup_epochs and warmup_steps; set one of them"
    if recipe["global_batch"] % recipe["accumulation"]:
        return (
            f"accumulation is {recipe['accumulation']}, which does not divide global_batch "
            f"({recipe['global_batch']})"
        )
    if recipe["start"] and workload.start is None:
        return f"start is {recipe['start']!r}, but {workload.name} starts from drawn weights alone"
    target = recipe["target"]
    metrics = {metric.name: metric for metric in workload.metrics}
    if target["metric"] not in metrics:
        return f"target.metric is {target['metric']!r}; {nearest(target['metric'], metrics)}"
    if metrics[target["metric"]].unit == "share" and target["value"] > 1:
        return f"target.value is {target['value']!r}; it must be at most 1"
    return None


def _optimizer_problem(
    optimizer: Mapping[str, Any], parameters: Sequence["Parameter"]
) -> str | None:
    """Return what of a recipe's optimizer and its groups does not go together, or None."""
    groups = {p.group for p in parameters}
    for name in optimizer["groups"]:
        if name not in groups:
            return f"optimizer.groups: {name!r} is no group of parameters; {nearest(name, groups)}"
    for group in sorted(groups):
        given = optimizer["groups"].get(group, GROUP)
        own = {**optimizer, **{key: given[key] for key in GROUP_MAY if key in given}}
        key = f"optimizer.groups.{group}" if group in optimizer["groups"] else "optimizer"
        if own["nesterov"] and not own["momentum"]:
            return f"{key}.nesterov needs a momentum; set {key}.momentum, or nesterov: false"
        for beta in ("beta1", "beta2"):
            if own[beta] >= 1:
                return f"{key}.{beta} is {own[beta]!r}; it must be below 1"
        members = [p for p in parameters if p.group == group]
        others = [p.name for p in members if not p.ids]
        by_row = own["name"] == "rowwise_adagrad"
        if others and (by_row or given["update"] == "touched_rows"):
            what = "name is rowwise_adagrad" if by_row else "update is touched_rows"
            return f"{key}.{what}, but {others[0]} is no table that a batch looks rows up in"
        if given["update"] == "touched_rows":
            moves = "" if own["name"] in ("sgd", "adagrad", "rowwise_adagrad") else own["name"]
            if own["name"] == "sgd" and own["momentum"]:
                moves = "momentum"
            if optimizer["weight_decay"] * given["decay"] and any(p.decay for p in members):
                moves = "weight decay"
            if moves:
                return (
                    f"{key}.update is touched_rows, but {moves} changes rows that no batch looks "
                    "up; choose dense, or sgd without momentum, adagrad or rowwise_adagrad, and no "
                    "decay"
                )
    return None
