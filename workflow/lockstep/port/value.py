"""One value that both sides have: how far it differs, how far it may, and what that says."""

import math
from dataclasses import dataclass, replace

import numpy as np

from lockstep.parity import rung
from lockstep.parity.distances import ENVELOPE, TOLERANCE, tolerance_from_twin
from lockstep.port import align
from lockstep.port.seen import OUT, Place

FIRM = {**TOLERANCE, "bfloat16": 1e-2}
ROUNDED = 2e-7
"""What a constant that was rounded to float32 moves a float64 value by, where it enters."""
OUTPUT, BUFFER = "output ", "statistics "
EQUAL, DIFFERS, FOLLOWS, ELSEWHERE = "equal", "differs", "follows", "elsewhere"


@dataclass(frozen=True, kw_only=True)
class Value:
    """One compared value.

    Attributes:
        name: of the layer, with "input of" before it if that is looked at.
        place: in PyTorch.
        distance, tolerance: relative.
        layout: in which PyTorch's is compared, where it is another than JAX's.
        shapes, dtypes: of PyTorch and of JAX.
        status: `EQUAL`, `DIFFERS` (the first), `FOLLOWS` (from the first), `ELSEWHERE` (looked at
            in two places of a block whose output is equal).
        why: what is special about it.
    """

    name: str
    place: Place
    distance: float
    tolerance: float
    layout: str
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtypes: tuple[str, str]
    status: str = EQUAL
    why: str = ""


def compared(
    name: str,
    place: Place,
    a: np.ndarray,
    b: np.ndarray,
    moved: list[float],
    precision: str,
    dtypes: tuple[str, str],
) -> Value:
    """Return how far two values differ, and how far they may.

    Args:
        a, b: PyTorch's and JAX's.
        moved: distances of the frameworks from their own twins; none in float64.
        dtypes: in which they were computed.
    """
    value, layout = align.apart(a, b)
    allowed = FIRM[precision]
    if moved:
        twin = min(moved)
        allowed = tolerance_from_twin(twin)
        if precision == "bfloat16":
            allowed = max(FIRM[precision], ENVELOPE * twin if np.isfinite(twin) else 0.0)
    why = ""
    wrong = [np.size(x) - np.count_nonzero(np.isfinite(x)) for x in (a, b)]
    if any(wrong):
        why = (
            f"{wrong[0]} of {np.size(a)} values are not finite in PyTorch, "
            f"{wrong[1]} of {np.size(b)} in JAX"
        )
        if layout_equal(a, b):
            value, why = 0.0, f"{why}, the same ones"
    elif not math.isfinite(value):
        why = "no layout makes one shape of the other"
    return Value(
        name=name,
        place=place,
        distance=value,
        tolerance=allowed,
        layout=layout,
        shapes=(tuple(a.shape), tuple(b.shape)),
        dtypes=dtypes,
        why=why,
    )


def layout_equal(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two values with infinities or NaN are equal in some layout, to 1e-5."""
    return any(
        np.allclose(x, b, rtol=1e-5, atol=1e-6, equal_nan=True)
        for _, x in align.candidates(a, tuple(b.shape))
    )


def held(values: list[Value], precision: str) -> list[Value]:
    """Hold what comes after a layer that computes in float32 to float32's tolerance."""
    found, island = [], False
    for value in values:
        if precision == "float64" and set(value.dtypes) != {"float64"}:
            island = True
        if island:
            value = replace(
                value,
                tolerance=FIRM["float32"],
                why=value.why or f"computed in {' and '.join(sorted(set(value.dtypes)))}",
            )
        found.append(value)
    return found


def marked(values: list[Value]) -> list[Value]:
    """Say of each value whether it is equal, the first that differs, or what follows from that."""
    beyond = [not value.distance <= value.tolerance for value in values]
    outputs = [b for v, b in zip(values, beyond) if v.place.path.startswith((OUTPUT, BUFFER))]
    sound = {v.place.path for v, b in zip(values, beyond) if not b and v.place.moment == OUT}
    found: list[Value] = []
    for value, differs in zip(values, beyond):
        status = DIFFERS if differs else EQUAL
        own = value.place.path.startswith((OUTPUT, BUFFER))
        if differs and not own and (not any(outputs) or _inside(value.place.path, sound)):
            status = ELSEWHERE
        found.append(replace(value, status=status))
    items = [
        (str(k), v.distance, v.tolerance) for k, v in enumerate(found) if v.status != ELSEWHERE
    ]
    first = rung.judge("", "layers", items, "layers").first
    return [
        replace(v, status=FOLLOWS) if v.status == DIFFERS and str(k) != first else v
        for k, v in enumerate(found)
    ]


def _inside(path: str, sound: set[str]) -> bool:
    parts = path.split(".")
    return any(".".join(parts[:k]) in sound for k in range(1, len(parts)))
