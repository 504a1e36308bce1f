"""Which layout makes a tensor of JAX's shape of one of PyTorch's."""

import functools
import itertools
import math

from lockstep.workloads.naming import DENSE, Layout

Shape = tuple[int, ...]


@functools.cache
def guess(torch: Shape, jax: Shape, kind: str) -> tuple[Layout | None, bool] | None:
    """Return the likeliest layout, and whether kernels are flipped; None if none fits.

    Args:
        kind: of the PyTorch module that owns the tensor, such as `Linear`.
    """
    torch, jax = tuple(torch), tuple(jax)
    if len(torch) < 2:
        if torch == jax:
            return None, False
        return _viewed(torch, torch, (0,), jax)
    swapped = tuple(range(2, len(torch)))
    if kind.startswith("ConvTranspose"):
        for axes, flip in (((*swapped, 0, 1), True), ((*swapped, 1, 0), False)):
            if _permuted(torch, axes) == jax:
                return Layout(axes=axes), flip
    elif kind.startswith("Conv") and len(torch) > 2:
        if _permuted(torch, (*swapped, 1, 0)) == jax:
            return Layout(axes=(*swapped, 1, 0)), False
    elif kind in ("Linear", "MultiheadAttention", "Bilinear") and len(torch) == 2:
        if torch[::-1] == jax:
            return DENSE, False
        found = _viewed(torch, torch, (1, 0), jax)
        if found and len(jax) > 2:
            return found
    if torch == jax:
        return None, False
    if torch[::-1] == jax:
        return Layout(axes=tuple(range(len(torch)))[::-1]), False
    if len(torch) == len(jax) <= 5:
        for axes in itertools.permutations(range(len(torch))):
            if _permuted(torch, axes) == jax:
                return Layout(axes=axes), False
    if 1 in jax or 1 in torch:
        return _viewed(torch, torch, tuple(range(len(torch))), jax)
    return None


def _viewed(
    neutral: Shape, split: Shape, axes: tuple[int, ...], merged: Shape
) -> tuple[Layout | None, bool] | None:
    if math.prod(neutral) != math.prod(merged):
        return None
    return Layout(axes=axes, views=(neutral, split, merged)), False


def _permuted(shape: Shape, axes: tuple[int, ...]) -> Shape:
    return tuple(shape[axis] for axis in axes)


def said(layout: Layout | None) -> str:
    """Return a layout in words; nothing for none."""
    if layout is None:
        return ""
    words = []
    if layout.axes != tuple(range(len(layout.axes))):
        plain = layout.axes == (1, 0)
        words.append("transposed" if plain else f"axes {' '.join(map(str, layout.axes))}")
    if layout.views:
        words.append(f"as {layout.views[2]}")
    return ", ".join(words)
