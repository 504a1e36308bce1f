"""Initial weights: made once by NumPy, stored neutrally, loaded by both frameworks.

A state is a mapping from a name with a role to a NumPy array in neutral layout:
``param/conv1.kernel``, ``buffer/norm1.mean``, and the optimizer's slots by their own names, such as
``momentum/conv1.kernel`` (`lockstep.workloads.optimizers`). Checkpoints and final states have the
same form, so a run stopped in one framework can be continued in the other.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from lockstep import files
from lockstep.datasets import keys
from lockstep.errors import UserError
from lockstep.workloads import optimizers
from lockstep.workloads.contract import Parameter, Workload

State = Mapping[str, np.ndarray]


def initial(workload: Workload, model: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Return a workload's parameters and buffers before the first step, float32.

    Each parameter has its own stream, keyed by workload, seed and name: adding one changes no
    other.
    """
    state = {}
    for parameter in workload.parameters(model):
        key = ("weights", workload.name, seed, parameter.name)
        state[f"param/{parameter.name}"] = _draw(parameter, *key)
    for buffer in workload.buffers(model):
        value = np.full(buffer.shape, buffer.constant) if buffer.value is None else buffer.value()
        state[f"buffer/{buffer.name}"] = value.astype(buffer.dtype)
    return state


def started(
    state: State, path: Path, workload: Workload, model: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return initial weights with the parameters that a staged file has.

    Raises:
        UserError: it is not readable, or not of the model.
    """
    assert workload.start is not None
    found = workload.start(str(path), load(path), model)
    return {**state, **{f"param/{name}": value for name, value in found.items()}}


def _draw(parameter: Parameter, *key: object) -> np.ndarray:
    count = int(np.prod(parameter.shape))
    if parameter.std:
        values = parameter.std * keys.normal(count, *key)
    elif parameter.bound:
        values, start = np.empty(count, np.float32), 0
        for block in keys.uniform_blocks(count, *key):
            values[start : start + len(block)] = parameter.bound * (2 * block - 1)
            start += len(block)
    else:
        values = np.full(count, parameter.constant)
    return values.reshape(parameter.shape).astype(np.float32, copy=False)


def complete(state: State, workload: Workload, recipe: Mapping[str, Any]) -> State:
    """Check that a state has the tensors of a workload's model and optimizer, in their shapes.

    Returns:
        The state; with slots of zeros if it has none, as before the first step.

    Raises:
        UserError: names the first tensor that is missing, too many or of another shape.
    """
    model = recipe["model"]
    named = optimizers.kept(recipe["optimizer"], workload.trained(model))
    shapes = {f"buffer/{b.name}": b.shape for b in workload.buffers(model)}
    shapes |= {f"param/{p.name}": p.shape for p in workload.parameters(model)}
    slots = {f"{slot}/{name}": shape for slot, own in named.items() for name, shape in own.items()}
    if all(name.startswith(("param/", "buffer/")) for name in state):
        some = next(iter(state.values())).dtype if state else np.float32
        zeros = {name: np.zeros(shape, some) for name, shape in slots.items()}
        state = {**state, **zeros}
    shapes |= slots
    for name in sorted(shapes.keys() | state.keys()):
        if name not in state:
            raise UserError(f"the weights are not those of {workload.name}: no {name}")
        found = f"{name} of shape {state[name].shape}"
        if name not in shapes:
            raise UserError(f"the weights are not those of {workload.name}: {found} too many")
        if state[name].shape != tuple(shapes[name]):
            raise UserError(
                f"the weights are not those of {workload.name}: {found}, not {tuple(shapes[name])}"
            )
    return state


MOVED = 16
"""Floats by which a twin's parameters are moved. Two libraries sum a convolution's products in
different orders, which moves a result by several units in the last place: with one unit, gradients
were seven times as far from the other framework's as from the twin's.
"""


def perturbed(state: State, seed: int) -> dict[str, np.ndarray]:
    """Return a *twin*: every parameter moved by `MOVED` floats, up or down at random.

    How far a framework runs from its own twin is how far rounding alone can carry it; the other
    framework may differ by as much, and no more, to count as the same.
    """
    twin = dict(state)
    for name, value in state.items():
        if name.startswith("param/"):
            up = keys.words(value.size, "twin", seed, name).reshape(value.shape) & np.uint64(1)
            target = np.where(up, np.inf, -np.inf).astype(value.dtype)
            for _ in range(MOVED):
                value = np.nextafter(value, target)
            twin[name] = value
    return twin


def digest(state: State) -> str:
    """Return one hash (hex) over names, types, shapes and bytes of a state."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = np.ascontiguousarray(state[name])
        total.update(f"{name}\0{value.dtype.str}\0{value.shape}\0".encode())
        total.update(value.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def save(path: Path, state: State, metadata: Mapping[str, str] | None = None) -> None:
    """Write a state as safetensors, atomically; equal states give equal bytes."""
    arrays = {name: np.ascontiguousarray(state[name]) for name in sorted(state)}
    with files.atomic(path) as temporary:  # to a file at once: tables may have gigabytes
        try:
            safetensors.numpy.save_file(arrays, temporary, dict(metadata or {}) or None)
        except SafetensorError as error:  # which is how it tells what the system says
            found = re.search(r"os error (\d+)", str(error))
            if found is None:
                raise
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


def load(path: Path) -> dict[str, np.ndarray]:
    """Read a state.

    Raises:
        UserError: the file is missing or is not safetensors.
    """
    try:
        # Mapped, the file's pages would count as this process's, beside the arrays.
        return safetensors.numpy.load_file(path, backend="pread")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except SafetensorError as error:
        raise UserError(f"{path}: not a readable safetensors file ({error})") from error
    except TypeError as error:  # NumPy has no bfloat16
        raise UserError(f"{path}: {error}; convert its tensors to float32") from error
