"""A step's batch as one exact integer: what the model consumed, not what was planned.

The checksum of a batch is, modulo 2**32,

    sum over slots g of  slot(g) * (sum over words j of  word(j) * x[g, j]
                                    + LABEL * label[g] + ONE)

where x[g] are the bytes of an example as little-endian 32-bit words (padded with zeros) and slot
and word are odd coefficients, so that order counts in both directions and no single changed byte
can go unseen; a masked slot adds nothing. Being a sum over slots it is summed over ranks, and being
integer arithmetic it is the same on every backend. The engines compute it inside the step, from the
tensors that the model reads; this module is its definition and what the tests compare with.
"""

import hashlib

import numpy as np

LABEL = 0x85EBCA6B
ONE = 0xC2B2AE35
_WORD, _SLOT = 0x9E3779B1, 0x27D4EB2F


def word_coefficients(example_bytes: int) -> np.ndarray:
    """Return the coefficients of an example's words, uint32 ``(ceil(example_bytes / 4),)``."""
    count = -(-example_bytes // 4)
    return (2 * np.arange(count, dtype=np.uint32) + 1) * np.uint32(_WORD)


def byte_coefficients(example_bytes: int) -> np.ndarray:
    """Return the same for each byte by itself, uint32 ``(example_bytes,)``.

    Modulo 2**32 a word times its coefficient is the sum of its bytes times these.
    """
    places = np.uint32(1) << np.array([0, 8, 16, 24], np.uint32)
    return np.outer(word_coefficients(example_bytes), places).ravel()[:example_bytes]


def padding(example_bytes: int) -> int:
    """Return how many zero bytes fill up an example's last word."""
    return -example_bytes % 4


def slot_coefficients(count: int) -> np.ndarray:
    """Return the coefficients of the slots of a global batch, uint32 ``(count,)``."""
    return (2 * np.arange(count, dtype=np.uint32) + 1) * np.uint32(_SLOT)


def checksum(images: np.ndarray, labels: np.ndarray, count: int) -> int:
    """Return the checksum of a global batch.

    Args:
        images: uint8 ``(B, …)``.
        labels: integers ``(B,)``.
        count: how many slots are real; the rest is padding.
    """
    flat = images.reshape(len(images), -1)
    size = flat.shape[1]
    words = np.ascontiguousarray(np.pad(flat, ((0, 0), (0, padding(size))))).view("<u4")
    rows = (words * word_coefficients(size)).sum(axis=1, dtype=np.uint32)
    rows += labels.astype(np.uint32) * np.uint32(LABEL) + np.uint32(ONE)
    return int((rows * slot_coefficients(len(rows)))[:count].sum(dtype=np.uint32))


def chain(checksums: np.ndarray) -> str:
    """Return one hash (hex) over the checksums of a run's steps, in order."""
    return hashlib.sha256(np.ascontiguousarray(checksums, "<u4").tobytes()).hexdigest()
