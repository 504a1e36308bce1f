"""From a framework's parameter names and layouts to the neutral ones, and back.

The map is explicit and checked: a bijection with equal shapes. Nothing is guessed from names.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a neutral tensor is laid out in a framework: its axes in another order.

    Attributes:
        axes: the order of the neutral tensor's axes.
        views: where an axis stands for several (a dense kernel after a flatten): the shapes
            (neutral, split, merged). The neutral tensor is viewed as `split` before its axes are
            reordered, and as `merged` afterwards.
    """

    axes: tuple[int, ...]
    views: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None = None

    def apply(self, neutral: np.ndarray) -> np.ndarray:
        """Return the framework's layout (a contiguous copy) of a neutral tensor."""
        if self.views is None:
            return np.ascontiguousarray(neutral.transpose(self.axes))
        _, split, merged = self.views
        return np.ascontiguousarray(neutral.reshape(split).transpose(self.axes).reshape(merged))

    def invert(self, native: np.ndarray) -> np.ndarray:
        """Return the neutral layout (a contiguous copy) of a framework's tensor."""
        order = np.argsort(self.axes)
        if self.views is None:
            return np.ascontiguousarray(native.transpose(order))
        neutral, split, _ = self.views
        permuted = native.reshape([split[axis] for axis in self.axes])
        return np.ascontiguousarray(permuted.transpose(order).reshape(neutral))


DENSE = Layout(axes=(1, 0))
"""Dense kernels in PyTorch: (in, out) becomes (out, in)."""

CONVOLUTION = Layout(axes=(3, 2, 0, 1))
"""Convolution kernels in PyTorch: HWIO becomes OIHW."""

Names = Mapping[str, tuple[str, Layout | None]]
"""Neutral name -> (the framework's name, its layout; None where the layouts are the same)."""


def check(names: Names, neutral: Mapping[str, tuple], native: Mapping[str, tuple]) -> None:
    """Check that `names` is a bijection between two sets of tensors with equal shapes.

    Args:
        names: the map.
        neutral: shapes by neutral name.
        native: shapes by the framework's name.

    Raises:
        ValueError: names what is missing, doubled or of another shape.
    """
    _same("neutral names", names, neutral)
    targets = [target for target, _ in names.values()]
    if len(set(targets)) != len(targets):
        raise ValueError(f"two neutral names map to one of {sorted(targets)}")
    _same("the framework's names", targets, native)
    for name, (target, layout) in names.items():
        empty = np.empty(neutral[name], np.uint8)
        shape = (layout.apply(empty) if layout else empty).shape
        if shape != tuple(native[target]):
            raise ValueError(f"{name}: {shape} does not fit {target}: {tuple(native[target])}")


def _same(what: str, mapped: Iterable[str], present: Iterable[str]) -> None:
    absent, extra = sorted(set(present) - set(mapped)), sorted(set(mapped) - set(present))
    if absent or extra:
        raise ValueError(f"{what}: not mapped {absent}, mapped but not there {extra}")


def to_native(tensors: Mapping[str, np.ndarray], names: Names) -> dict[str, np.ndarray]:
    """Return neutral tensors under the framework's names and in its layouts."""
    result = {}
    for name, (target, layout) in names.items():
        result[target] = layout.apply(tensors[name]) if layout else tensors[name]
    return result


def to_neutral(tensors: Mapping[str, np.ndarray], names: Names) -> dict[str, np.ndarray]:
    """Return a framework's tensors under neutral names and in neutral layouts."""
    result = {}
    for name, (target, layout) in names.items():
        result[name] = layout.invert(tensors[target]) if layout else tensors[target]
    return result
