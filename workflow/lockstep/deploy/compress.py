"""Compressed forms of a final state, made once by NumPy in the neutral naming and layout.

A form is a mapping from names to arrays, as a state is: ``param/conv1.kernel`` is then int8, and
``scale/conv1.kernel`` beside it says what one of its units is, float32, one of each output channel
(the last axis). Both frameworks read the same integers; nothing is rounded twice. Only kernels are
compressed: what multiplies an activation and is a matrix or more.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lockstep.errors import UserError
from lockstep.workloads.weights import State

LEVELS = {"int8": 127, "int4": 7}
"""Largest integers of symmetric quantisation: as many below zero as above it."""
KERNEL, SCALE, STEP = "param/", "scale/", "activation/"
SUMMED, LARGEST = 256, 1 << 24
"""Examples whose integer sums are compared, and sums of a layer at most."""


def kernels(state: State) -> list[str]:
    """Return the names of what is compressed, without the role."""
    names = (name.removeprefix(KERNEL) for name in state if name.startswith(KERNEL))
    return [name for name in names if name.endswith(".kernel")]


def bf16(state: State) -> dict[str, np.ndarray]:
    """Round every parameter to bfloat16, half to even; as uint16, its upper bits."""
    return {
        name: _upper(value) if name.startswith(KERNEL) else value for name, value in state.items()
    }


def _upper(value: np.ndarray) -> np.ndarray:
    bits = np.ascontiguousarray(value, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def integers(state: State, levels: int) -> dict[str, np.ndarray]:
    """Round kernels to multiples of a scale of each output channel.

    Raises:
        UserError: a channel is zero throughout, or not finite: it has no scale.
    """
    form = dict(state)
    for name in kernels(state):
        value = np.asarray(state[KERNEL + name], np.float32)
        largest = np.abs(value).max(axis=tuple(range(value.ndim - 1)))
        bad = np.flatnonzero(~(np.isfinite(largest) & (largest > 0)))
        if len(bad):
            what = "is zero throughout" if largest[bad[0]] == 0 else "is not finite"
            raise UserError(f"channel {bad[0]} of {name} {what}: it has no scale")
        scale = (largest / np.float32(levels)).astype(np.float32)
        form[KERNEL + name] = np.clip(np.rint(value / scale), -levels, levels).astype(np.int8)
        form[SCALE + name] = scale
    return form


def static(state: State, largest: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Round kernels as for int8, and give each layer the step that its inputs are rounded to.

    Args:
        largest: of each kernel's layer, the largest input that training images gave.

    Raises:
        UserError: a channel is zero throughout, or a layer has seen nothing, or only zeros.
    """
    form = integers(state, LEVELS["int8"])
    for name in kernels(state):
        if name not in largest:
            raise UserError(f"the layer of {name} was not called: its inputs have no scale")
        if not (np.isfinite(largest[name]) and largest[name] > 0):
            raise UserError(f"the inputs of {name} are zero throughout: they have no scale")
        form[STEP + name] = np.array(largest[name] / LEVELS["int8"], np.float32)
    return form


def half(state: State) -> dict[str, np.ndarray]:
    """Set the smaller half of each kernel's weights to zero."""
    form = dict(state)
    for name in kernels(state):
        value = state[KERNEL + name]
        flat = np.abs(value).ravel()
        dropped = np.argsort(flat, kind="stable")[: flat.size // 2]
        kept = np.ones(flat.size, bool)
        kept[dropped] = False
        form[KERNEL + name] = np.where(kept.reshape(value.shape), value, np.float32(0))
    return form


def two_of_four(state: State) -> dict[str, np.ndarray]:
    """Keep the two larger of each four weights in a row along a kernel's inputs (2:4).

    Inputs are all axes but the last, in their order; fewer than four at the end are kept.
    """
    form = dict(state)
    for name in kernels(state):
        value = state[KERNEL + name]
        rows = value.reshape(-1, value.shape[-1])
        whole = len(rows) // 4 * 4
        groups = np.abs(rows[:whole]).reshape(-1, 4, rows.shape[1])
        rank = np.argsort(np.argsort(-groups, axis=1, kind="stable"), axis=1, kind="stable")
        kept = np.concatenate([(rank < 2).reshape(whole, -1), np.ones_like(rows[whole:], bool)])
        form[KERNEL + name] = np.where(kept, rows, np.float32(0)).reshape(value.shape)
    return form


FORMS: Mapping[str, Callable[[State], dict[str, np.ndarray]]] = {
    "bf16": bf16,
    "int8": lambda state: integers(state, LEVELS["int8"]),
    "int4": lambda state: integers(state, LEVELS["int4"]),
    "half": half,
    "2of4": two_of_four,
}
"""By name; there is `lockstep.deploy.task.STATIC`, too, which needs the inputs of layers."""


def restored(form: State) -> dict[str, np.ndarray]:
    """Return the float32 state that a form stands for, as a framework computes with it."""
    state = {}
    for name, value in form.items():
        if name.startswith((SCALE, STEP)):
            continue
        if value.dtype == np.uint16 and name.startswith(KERNEL):
            value = (value.astype(np.uint32) << 16).view(np.float32)
        if value.dtype == np.int8:
            value = value.astype(np.float32) * form[SCALE + name.removeprefix(KERNEL)]
        state[name] = value
    return state


class Sums(dict[str, np.ndarray]):
    """The int32 sums of layers, channels last, ``(examples, …)`` by their kernel's name."""

    def keep(self, name: str, sums: Any) -> None:
        """Keep the first examples of a layer's first batch."""
        if name not in self:
            most = max(1, min(SUMMED, LARGEST // math.prod(sums.shape[1:])))
            self[name] = np.asarray(sums[:most]).copy()


def size(form: State, name: str) -> int:
    """Return the bytes that a form takes when it is stored.

    int4 takes half a byte a weight; of masks, kept weights and a bit for each place, of 2:4
    two bits for each kept one.
    """
    total = 0
    for key, value in form.items():
        compressed = key.endswith(".kernel") and key.startswith(KERNEL)
        if name == "int4" and compressed:
            total += -(-value.size // 2)
        elif name == "half" and compressed:
            total += int(np.count_nonzero(value)) * 4 + -(-value.size // 8)
        elif name == "2of4" and compressed:
            kept = int(np.count_nonzero(value))
            total += kept * 4 + -(-kept // 4)
        else:
            total += value.nbytes
    return total


def facts(form: State, name: str) -> dict[str, Any]:
    """Return what is to be said of a form."""
    values = [form[KERNEL + kernel] for kernel in kernels(form)]
    zeros = sum(int((value == 0).sum()) for value in values)
    return {"bytes": size(form, name), "zeros": zeros / sum(value.size for value in values)}
