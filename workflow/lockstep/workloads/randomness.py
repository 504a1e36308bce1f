"""Random numbers inside a model, equal to the bit in PyTorch, JAX and NumPy: the definition.

A random number is a pure function of the example's *key* (two 32-bit words, a draw of the example),
the *site* (the number of the place in the model) and the position within the example. It depends on
neither the batch, the number of processes nor a resumption, and there is no state to checkpoint.

    key' = mix(key[0] xor site * C0), mix(key[1] + site * C1)
    word(i) = mix(mix(i xor key'[0]) xor key'[1])

`mix` is Wellons' `lowbias32`. All arithmetic is modulo 2**32. An element of a mask takes 16 bits:
the two halves of a word, the lower one first, as signed integers. `randomness_torch` (int32, since
PyTorch does not compute with uint32) and `randomness_flax` are held to this module.

It is no cryptography, and Philox has the better theory; its 64-bit products are slow in JAX.
Source of `mix`: C. Wellons, Prospecting for hash functions (2018),
https://nullprogram.com/blog/2018/07/31/.
"""

import math
from collections.abc import Sequence

import numpy as np

FIRST_FACTOR, SECOND_FACTOR = 0x7FEB352D, 0x846CA68B
SHIFTS = (16, 15, 16)
SITE_FACTORS = (0x9E3779B1, 0x85EBCA6B)
HALVES = 1 << 16  # values of 16 bits
LARGEST = 1 << 31  # bound of uniform integers


def threshold(keep: float) -> int:
    """Return how many of the 65,536 values of 16 bits keep an element.

    Raises:
        ValueError: `keep` is not a probability above 0, in steps of 1/65,536.
    """
    kept = round(HALVES * keep)
    if not 1 <= kept <= HALVES:
        raise ValueError(f"the probability of keeping an element is {keep}; it must be in (0, 1]")
    return kept


def scale(keep: float) -> float:
    """Return what kept elements are multiplied by: the inverse of the exact probability."""
    return HALVES / threshold(keep)


def site_factor(site: int, word: int) -> int:
    """Return what a site brings to a word of the key, in ``[0, 2**32)``."""
    return site * SITE_FACTORS[word] % (1 << 32)


def check_limit(limit: int) -> None:
    """Raise ValueError unless uniform integers below `limit` can be drawn."""
    if not 1 <= limit <= LARGEST:
        raise ValueError(f"limit is {limit}; it must be from 1 to {LARGEST}")


def mix(words: np.ndarray) -> np.ndarray:
    """Return the hash of each word, uint32."""
    first, second, third = (np.uint32(shift) for shift in SHIFTS)
    words = (words ^ (words >> first)) * np.uint32(FIRST_FACTOR)
    words = (words ^ (words >> second)) * np.uint32(SECOND_FACTOR)
    return words ^ (words >> third)


def words(keys: np.ndarray, site: int, count: int) -> np.ndarray:
    """Return random words of a site, uint32 ``(B, count)``.

    Args:
        keys: of the examples, uint32 or int32 ``(B, 2)``.
        site: number of the place in the model, not negative.
        count: words of each example.
    """
    keys = np.ascontiguousarray(keys).view(np.uint32)
    first = mix(keys[:, 0] ^ np.uint32(site_factor(site, 0)))
    second = mix(keys[:, 1] + np.uint32(site_factor(site, 1)))
    index = np.arange(count, dtype=np.uint32)
    return mix(mix(index ^ first[:, None]) ^ second[:, None])


def keep_mask(keys: np.ndarray, site: int, shape: Sequence[int], keep: float) -> np.ndarray:
    """Return which elements are kept, bool ``(B, *shape)``.

    Args:
        keys, site: see `words`.
        shape: of an example's elements.
        keep: probability of keeping one.
    """
    size = math.prod(shape)
    halves = words(keys, site, -(-size // 2)).astype("<u4").view("<i2")[:, :size]
    # Compared by "at most", so that the bound of every probability fits into 16 bits.
    return (halves <= threshold(keep) - HALVES // 2 - 1).reshape(len(keys), *shape)


def dropout(x: np.ndarray, keys: np.ndarray, site: int, rate: float) -> np.ndarray:
    """Return `x` with elements zeroed at random and the others scaled up.

    Args:
        x: float32 or float64 ``(B, …)``.
        keys, site: see `words`.
        rate: probability of zeroing an element, in ``[0, 1)``.
    """
    if not rate:
        return x
    kept = keep_mask(keys, site, x.shape[1:], 1 - rate)
    return np.where(kept, x * x.dtype.type(scale(1 - rate)), x.dtype.type(0))


def integers(keys: np.ndarray, site: int, shape: Sequence[int], limit: int) -> np.ndarray:
    """Return uniform integers in ``[0, limit)``, int32 ``(B, *shape)``.

    Each is the upper half of a word's product with `limit`: none is more probable than another by
    more than limit / 2**32. The 64-bit product is summed from 16-bit parts by the frameworks.
    """
    check_limit(limit)
    drawn = words(keys, site, math.prod(shape)).astype(np.uint64)
    upper = (drawn * np.uint64(limit)) >> np.uint64(32)
    return upper.astype(np.int32).reshape(len(keys), *shape)
