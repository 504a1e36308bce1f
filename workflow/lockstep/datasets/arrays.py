"""Named arrays of examples: what a dataset stores, and what a batch consists of."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "bool")
"""Types of arrays. None has 64 bits: JAX would make 32 of them in silence."""


@dataclass(frozen=True, kw_only=True)
class Array:
    """A named array of an example.

    Attributes:
        name: such as `image` or `tokens`.
        dtype: one of `DTYPES`.
        shape: of one example, ``()`` for a number.
        ragged: as stored, the first axis has another length in each example; `shape` is that of
            what it consists of.
        high: exclusive bound of its values (labels, ids), if there is one.
        blank: what a blank example holds, broadcast to `shape`: engines compile with such examples.
        probe: the element that the ladder changes, to see that a model reads it; the first if
            empty. To change it must change the loss.
        covers: whether it hides elements of other arrays, as masks do: the ladder changes those
            where this one is blank.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    ragged: bool = False
    high: int | None = None
    blank: Any = 0
    probe: tuple[int, ...] = ()
    covers: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"{self.name} is {self.dtype}; it must be one of {', '.join(DTYPES)}")

    @property
    def bytes(self) -> int:
        """Bytes of an example; of a ragged array, of one element of its first axis."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def blanks(self, *leading: int) -> np.ndarray:
        """Return blank examples, ``(*leading, *shape)``."""
        shape = (*leading, *self.shape)
        return np.array(np.broadcast_to(np.asarray(self.blank, self.dtype), shape))

    def as_json(self) -> dict[str, Any]:
        """Return what a manifest says of it."""
        told: dict[str, Any] = {"dtype": self.dtype, "shape": list(self.shape)}
        if self.ragged:
            told["ragged"] = True
        if self.high is not None:
            told["high"] = self.high
        return told


@dataclass(frozen=True, kw_only=True)
class Ragged:
    """Examples of a ragged array, one after the other.

    Attributes:
        values: ``(total, *shape)``.
        lengths: of each example, int64 ``(N,)``.
    """

    values: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def offsets(self) -> np.ndarray:
        """Where each example starts, and where the last one ends, int64 ``(N + 1,)``."""
        return np.concatenate([[0], np.cumsum(self.lengths, dtype=np.int64)])

    def padded(self, length: int, fill: Any = 0) -> np.ndarray:
        """Return the examples filled up (or cut) to one length, ``(N, length, *shape)``."""
        shape = (len(self), length, *self.values.shape[1:])
        result = np.full(shape, fill, self.values.dtype)
        offsets = self.offsets
        for k, size in enumerate(np.minimum(self.lengths, length).tolist()):
            result[k, :size] = self.values[offsets[k] : offsets[k] + size]
        return result


Stored = np.ndarray | Ragged
"""An array of some examples, ``(N, *shape)``, or a ragged one."""

Split = tuple[str, dict[str, Any]]
"""A split's name, and its examples' arrays by name."""


def of_manifest(manifest: Mapping[str, Any]) -> dict[str, Array]:
    """Return a dataset's arrays by name, as its manifest says."""
    return {
        name: Array(name=name, **{**told, "shape": tuple(told["shape"])})
        for name, told in manifest["arrays"].items()
    }


def of_values(name: str, values: Stored, high: int | None = None) -> Array:
    """Return what an array of examples is.

    Raises:
        ValueError: its type is none of `DTYPES`.
    """
    ragged = isinstance(values, Ragged)
    array = values.values if isinstance(values, Ragged) else values
    dtype, shape = array.dtype.name, array.shape[1:]
    return Array(name=name, dtype=dtype, shape=shape, ragged=ragged, high=high)


def image_arrays(shape: tuple[int, ...], classes: int) -> dict[str, Array]:
    """Return what labelled images are: uint8 ``(height, width, channels)`` and int32 labels."""
    image = Array(name="image", dtype="uint8", shape=tuple(shape))
    return {"image": image, "label": Array(name="label", dtype="int32", high=classes)}


def labelled(images: np.ndarray, labels: np.ndarray) -> dict[str, Stored]:
    """Return labelled images as a split's arrays; labels of any type of integers become int32."""
    if np.issubdtype(labels.dtype, np.integer):
        labels = labels.astype(np.int32)
    return {"image": np.ascontiguousarray(images), "label": labels}
