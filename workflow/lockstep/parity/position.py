"""A state in general position: every parameter, slot and buffer random, some of them large.

Training starts from zeros in its slots and ones as scales, and its early steps reach few of the
values that later ones do: a `load` that forgets a tensor, two tensors that are swapped on the way
in and out, a gradient that is clipped, an activation or a logarithm that is bounded show nowhere.
From this state they do.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lockstep.datasets import keys
from lockstep.workloads import optimizers
from lockstep.workloads.contract import Parameter, Workload

LARGER = 3.0  # how many times a kernel is as large as it is drawn at first
LAST = 30.0  # the same of the last one, to which logits and all gradients are proportional
SPREAD = 0.3  # of what starts constant, and of logarithms of what must be positive
SLOT = 0.3  # of a slot's values, against those of its parameter


def general(workload: Workload, recipe: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Return such a state of a workload, float64, a pure function of workload and seed.

    In float64 it has more digits than float32 holds, so that a `load` that loses them shows.
    Kernels are `LARGER` or `LAST` times their first size, so that logits saturate and gradients
    are large; a buffer that starts positive (a variance) stays so.
    """
    state, model = {}, recipe["model"]
    parameters = workload.parameters(model)
    slots = optimizers.kept(recipe["optimizer"], workload.trained(model))
    last = max((k for k, p in enumerate(parameters) if len(p.shape) > 1), default=None)
    for k, parameter in enumerate(parameters):
        larger = LAST if k == last else LARGER
        key = ("general", workload.name, seed, parameter.name)
        deviation = _deviation(parameter)
        value = parameter.constant + larger * deviation * _normal(parameter.shape, *key)
        state[f"param/{parameter.name}"] = value
        for slot, shapes in slots.items():
            if parameter.name not in shapes:
                continue
            kept = SLOT * deviation * _normal(shapes[parameter.name], *key, slot)
            if slot in optimizers.NOT_NEGATIVE:
                kept = kept * kept
            state[f"{slot}/{parameter.name}"] = kept
    for buffer in workload.buffers(model):
        if buffer.value is not None:
            state[f"buffer/{buffer.name}"] = buffer.value().astype(buffer.dtype)
            continue
        drawn = SPREAD * _normal(buffer.shape, "general", workload.name, seed, buffer.name)
        value = buffer.constant * np.exp(drawn) if buffer.constant > 0 else buffer.constant + drawn
        state[f"buffer/{buffer.name}"] = value
    return state


def _deviation(parameter: Parameter) -> float:
    """Return the standard deviation of a parameter's first values, or a third of `SPREAD`."""
    return parameter.std or parameter.bound / 3**0.5 or SPREAD / LARGER


def _normal(shape: tuple[int, ...], *key: object) -> np.ndarray:
    return keys.normal(int(np.prod(shape)), *key).reshape(shape)
