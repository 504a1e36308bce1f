"""Taps: what a model's layers give, by names that both frameworks share.

They say which layer is the first that differs. By default every module that owns parameters is a
tap: the explicit map of parameter names (`naming.Names`) says which module of one framework is
which of the other. A model file may have a function ``taps(model)`` that says otherwise: from a
tap's name to the module's path (``layer1.0`` in PyTorch, ``layer1/0`` in Flax), in the order of
the network.
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from lockstep.workloads.contract import Parameter
from lockstep.workloads.naming import Names

SAMPLE = 16384  # elements that are kept of what a layer gives
GOLDEN = (5**0.5 - 1) / 2


def layers(
    functions: ModuleType,
    model: Mapping[str, Any],
    names: Names,
    parameters: Iterable[Parameter],
    separator: str,
) -> dict[str, str]:
    """Return the path of each tap's module, by the tap's name, in the order of the network.

    Args:
        functions: the workload's model file.
        model: the recipe's `model`.
        names: of the framework.
        separator: between the modules of a path.
    """
    if hasattr(functions, "taps"):
        return dict(functions.taps(model))
    found = {}
    for parameter in parameters:
        native = names[parameter.name][0].removeprefix(f"params{separator}")
        layer, path = parameter.name.rpartition(".")[0], native.rpartition(separator)[0]
        if layer and path:
            found[layer] = path
    return found


def places(size: int, most: int) -> np.ndarray:
    """Return at most `most` places of an array of `size` elements, spread over all of it, int64.

    Steps by a number without a divisor in common with the size, near its golden section: by any
    other, of a power of two say, they would be of a few channels alone.
    """
    if size <= most:
        return np.arange(size)
    near = int(GOLDEN * size)
    stride = next(step for step in itertools.count(near) if math.gcd(step, size) == 1)
    return np.arange(most) * stride % size


def sample(array: np.ndarray, most: int = SAMPLE) -> np.ndarray:
    """Return at most `most` elements of an array, ``(n,)``, in an order that its size decides."""
    flat = np.ravel(array)
    return flat[places(flat.size, most)]


@contextlib.contextmanager
def replaced_calls(
    kinds: Iterable[type], replace: Callable[[Callable], Callable]
) -> Iterator[None]:
    """Replace `__call__` of classes, on which Python finds it, and put it back."""
    owns = {kind: (kind.__dict__.get("__call__"), kind.__call__) for kind in kinds}
    for kind, (_, call) in owns.items():
        setattr(kind, "__call__", replace(call))  # noqa: B010
    try:
        yield
    finally:
        for kind, (sound, _) in owns.items():
            if sound is None:
                del kind.__call__
            else:
                setattr(kind, "__call__", sound)  # noqa: B010
