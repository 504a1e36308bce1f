"""Faults of what one side is shown: order, labels, crops, mirroring, resizing, values of pixels."""

from collections.abc import Callable, Mapping
from typing import Any

from lockstep.engines.jax_engine import JaxEngine
from lockstep.engines.torch_engine import TorchEngine
from tests.parity.faults import Fault, wrapping

Batch = Mapping[str, Any]
SEEN = {"torch": (TorchEngine, "seen"), "jax": (JaxEngine, "_seen")}
DIFFERENCES: dict[str, tuple[str, Callable[[Batch], Batch], Callable[[Batch], Batch]]] = {
    # What is changed before the engine makes a batch of it, and after.
    "two examples swapped": (
        "plain",
        dict,
        lambda b: {k: _swapped(v) for k, v in b.items()},
    ),
    "labels of the next example": (
        "plain",
        lambda b: {**b, "label": _rolled(b["label"], 0)},
        dict,
    ),
    "images moved by a pixel": (
        "plain",
        dict,
        lambda b: {**b, "image": _rolled(b["image"], 2)},
    ),
    "a pixel brighter by one": (
        "plain",
        dict,
        lambda b: {**b, "image": b["image"] + (b["image"] == 0)},
    ),
    "crops a pixel lower": (
        "residual",
        lambda b: {**b, "crop": _added(b["crop"], [1, 0, 0, 0, 0])} if "crop" in b else b,
        dict,
    ),
    "crops a pixel smaller, and resized": (
        "bottleneck",
        lambda b: {**b, "crop": _added(b["crop"], [0, 0, -1, 0, 0])} if "crop" in b else b,
        dict,
    ),
    "colours in another order": (
        "residual",
        dict,
        lambda b: {**b, "image": _reversed(b["image"])},
    ),
    "no image mirrored": (
        "residual",
        lambda b: {**b, "crop": _added(b["crop"], None)} if "crop" in b else b,
        dict,
    ),
}


def _swapped(x: Any) -> Any:
    order = [1, 0, *range(2, len(x))]
    return x[order] if hasattr(x, "numpy") else x[(*_array(order),)]


def _array(order: list[int]) -> tuple[Any, ...]:
    import jax.numpy as jnp

    return (jnp.array(order),)


def _rolled(x: Any, axis: int) -> Any:
    if hasattr(x, "numpy"):
        return x.roll(1, axis)
    import jax.numpy as jnp

    return jnp.roll(x, 1, axis)


def _reversed(x: Any) -> Any:
    return x.flip(-1) if hasattr(x, "numpy") else x[..., ::-1]


def _added(crops: Any, change: list[int] | None) -> Any:
    """Return crops with something added to each, or none of them mirrored."""
    if hasattr(crops, "numpy"):
        import torch

        keep = torch.tensor([1, 1, 1, 1, 0], dtype=crops.dtype)
        return crops * keep if change is None else crops + torch.tensor(change, dtype=crops.dtype)
    import jax.numpy as jnp

    keep = jnp.array([1, 1, 1, 1, 0], crops.dtype)
    return crops * keep if change is None else crops + jnp.array(change, crops.dtype)


def _shown(before: Callable[[Batch], Batch], after: Callable[[Batch], Batch]) -> Callable:
    return lambda sound: lambda self, batch: after(sound(self, before(batch)))


FAULTS = [
    Fault(
        name=name,
        side=side,
        preset=preset,
        rung="batches",
        named="the first batch",
        patch=wrapping(*SEEN[side], _shown(before, after)),
    )
    for side in SEEN
    for name, (preset, before, after) in DIFFERENCES.items()
]
