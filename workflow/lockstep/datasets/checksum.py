"""A step's batch as one exact integer: what the model consumed, not what was planned.

The checksum of a batch is, modulo 2**32,

    sum over slots g of  slot(g) * (ONE + sum over words j of  word(j) * x[g, j])

where x[g] are the bytes of an example's arrays, one after the other, each as little-endian 32-bit
words (filled up with zeros), and slot and word are odd coefficients, so that order counts in both
directions and no single changed byte can go unseen; padding adds nothing. Being a sum over slots it
is summed over ranks, and being integer arithmetic it is the same on every backend. The engines
compute it inside the step, from the tensors that the model reads; this module is its definition and
what the tests compare with.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

ONE = 0xC2B2AE35
_WORD, _SLOT = 0x9E3779B1, 0x27D4EB2F


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an array's words stand among those of an example.

    Attributes:
        first: its first word.
        elements: of an example.
        itemsize: bytes of an element.
    """

    first: int
    elements: int
    itemsize: int

    @property
    def words(self) -> np.ndarray:
        """The coefficients of its words, uint32."""
        count = -(-self.elements * self.itemsize // 4)
        index = np.arange(self.first, self.first + count, dtype=np.uint32)
        return (2 * index + 1) * np.uint32(_WORD)

    @property
    def each(self) -> np.ndarray:
        """The same for each element by itself, uint32 ``(elements,)``.

        Modulo 2**32 a word times its coefficient is the sum of its parts times these.
        """
        parts = 4 // self.itemsize
        factors = np.uint32(1) << (8 * self.itemsize * np.arange(parts, dtype=np.uint32))
        return np.outer(self.words, factors).ravel()[: self.elements]

    @property
    def filling(self) -> int:
        """How many zero bytes fill up its last word."""
        return -self.elements * self.itemsize % 4


def places(batch: Mapping[str, np.ndarray]) -> dict[str, Place]:
    """Return the place of each array of a batch, ``(B, …)``, in their order."""
    result, first = {}, 0
    for name, array in batch.items():
        place = Place(
            first=first, elements=math.prod(array.shape[1:]), itemsize=array.dtype.itemsize
        )
        result[name] = place
        first += len(place.words)
    return result


def elements(places: Mapping[str, Place]) -> int:
    """Return how many elements an example has: what tells batches of several lengths apart."""
    return sum(place.elements for place in places.values())


def slot_coefficients(count: int) -> np.ndarray:
    """Return the coefficients of the slots of a global batch, uint32 ``(count,)``."""
    return (2 * np.arange(count, dtype=np.uint32) + 1) * np.uint32(_SLOT)


def checksum(batch: Mapping[str, np.ndarray], count: int) -> int:
    """Return the checksum of a global batch.

    Args:
        batch: arrays ``(B, …)``, in the order that the workload declares.
        count: how many slots are real; the rest is padding.
    """
    rows = np.full(len(next(iter(batch.values()))), ONE, np.uint32)
    for name, place in places(batch).items():
        flat = np.ascontiguousarray(batch[name]).reshape(len(rows), -1).view(np.uint8)
        words = np.ascontiguousarray(np.pad(flat, ((0, 0), (0, place.filling)))).view("<u4")
        rows += (words * place.words).sum(axis=1, dtype=np.uint32)
    return int((rows * slot_coefficients(len(rows)))[:count].sum(dtype=np.uint32))


def chain(checksums: np.ndarray) -> str:
    """Return one hash (hex) over the checksums of a run's steps, in order."""
    return hashlib.sha256(np.ascontiguousarray(checksums, "<u4").tobytes()).hexdigest()
