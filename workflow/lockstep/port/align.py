"""Which module of PyTorch is which of JAX, and how a value of one is laid out in the other."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from lockstep.parity.distances import distance
from lockstep.port.lines import Line
from lockstep.port.seen import OUT, TAP, Kept, Place

Pairs = Mapping[Place, Place]
Modules = Mapping[str, tuple[str, int | None]]
"""A PyTorch module's path -> JAX's, and of a stack of layers which call (None for every one)."""


def modules(lines: Sequence[Line]) -> dict[str, tuple[str, int | None]]:
    """Return the modules that own the same parameters on both sides.

    Where modules are nested that own the same ones, the innermost belong together, and the
    outermost; those between do if there are as many on both sides.
    """
    ours: dict[str, set] = {}
    theirs: dict[tuple[str, int | None], set] = {}
    for line in lines:
        if line.jax is None:
            continue
        key = (line.torch, line.torch_part)
        for path in _above(line.torch, "."):
            ours.setdefault(path, set()).add(key)
        layer = None
        if line.jax_part and line.layout and line.layout.views and line.layout.views[2][0] == 1:
            layer = line.jax_part[0]
        for path in _above(line.jax, "/"):
            theirs.setdefault((path, layer), set()).add(key)
    by_set: dict[frozenset, list] = {}
    for place, keys in theirs.items():
        by_set.setdefault(frozenset(keys), []).append(place)
    grouped: dict[frozenset, list] = {}
    for path, keys in ours.items():
        grouped.setdefault(frozenset(keys), []).append(path)
    found: dict[str, tuple[str, int | None]] = {}
    for same, paths in grouped.items():
        places = sorted(by_set.get(same, []), key=lambda place: place[0].count("/"))
        paths.sort(key=lambda path: path.count("."))
        if len(paths) == len(places):
            found.update(zip(paths, places))
        elif places:
            found[paths[-1]] = places[-1]
            if len(paths) > 1 and len(places) > 1:
                found[paths[0]] = places[0]
    return found


def _above(name: str, separator: str) -> Iterator[str]:
    path = name.rpartition(separator)[0]
    while path:
        yield path
        path = path.rpartition(separator)[0]


def places(together: Modules, ours: Iterable[Place], theirs: Kept) -> dict[Place, Place]:
    """Return the places of both sides that belong together, in PyTorch's order.

    What is called more often on one side than on the other is left out.
    """
    ours = list(ours)
    counts = [_counts(ours), _counts(theirs)]
    found = {}

    def as_often(place: Place, other: Place) -> bool:
        return counts[0][place[:2]] == counts[1].get(other[:2])

    for place in ours:
        other: Place | None = None
        if place.path.startswith(TAP):
            name = place.path.removeprefix(TAP)
            other = Place(place.path, OUT, place.call)
            if other not in theirs:
                other = Place(name.replace(".", "/"), OUT, place.call)
            other = other if as_often(place, other) else None
        elif place.path in together:
            path, layer = together[place.path]
            if layer is not None:
                other = Place(path, place.moment, layer)
            elif as_often(place, Place(path, place.moment, place.call)):
                other = Place(path, place.moment, place.call)
        if other is None or other not in theirs:
            tapped = Place(f"{TAP}{place.path}", OUT, place.call)
            same = place.moment == OUT and tapped in theirs and as_often(place, tapped)
            other = tapped if same else None
        if other is not None:
            found[place] = other
    return found


def _counts(places: Iterable[Place]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for place in places:
        counts[place.path, place.moment] = counts.get((place.path, place.moment), 0) + 1
    return counts


def candidates(ours: np.ndarray, shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield PyTorch's value in each layout that has JAX's shape, and what the layout is called."""
    if ours.shape == shape:
        yield "", ours
    elif ours.ndim == len(shape) > 1 and ours.shape[1:] == shape[1:]:
        alone = ours[:1]
        if shape[0] == 1 and (ours == alone).all():
            yield "the same for every example", alone
        elif len(ours) == 1:
            yield "the same for every example", np.broadcast_to(ours, shape)
    last = np.moveaxis(ours, 1, -1) if 3 <= ours.ndim <= 5 else None
    if last is not None and last.shape == shape:
        yield "channels last", last
    if ours.ndim >= 3 and ours.shape != shape and ours.swapaxes(0, 1).shape == shape:
        yield "first axes swapped", ours.swapaxes(0, 1)
    if ours.shape != shape and ours.size == np.prod(shape) and ours.shape[:1] == shape[:1]:
        yield "as another shape", ours.reshape(shape)
        if last is not None:
            yield "channels last, as another shape", last.reshape(shape)


def apart(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, str]:
    """Return the distance of two values in the layout in which it is smallest, and which that is.

    Infinity if no layout has the shape.
    """
    found = [(distance(theirs, value), how) for how, value in candidates(ours, tuple(theirs.shape))]
    return min(found, default=(float("inf"), ""), key=lambda item: item[0])
