"""Random numbers as pure functions of names: a counter-based generator keyed by a hash.

Only raw 64-bit words are taken from the bit generator, because NumPy promises that these stay the
same in every version; it does not promise that for its distributions (NEP 19).
"""

import hashlib
from collections.abc import Iterator

import numpy as np

BLOCK = 1 << 20  # numbers


def _generator(*key: object) -> np.random.Philox:
    hashed = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
    return np.random.Philox(key=np.frombuffer(hashed[:16], "<u8"))


def _fractions(words: np.ndarray) -> np.ndarray:
    return (words >> np.uint64(11)) * 2.0**-53


def words(count: int, *key: object) -> np.ndarray:
    """Return `count` random words, uint64 ``(count,)``, that depend on `key` alone.

    Philox 4x64: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
    """
    return _generator(*key).random_raw(count)


def uniform_blocks(count: int, *key: object) -> Iterator[np.ndarray]:
    """Yield the numbers of `uniform` in blocks: of a large table all at once would take its size
    several times over.
    """
    generator = _generator(*key)
    for start in range(0, count, BLOCK):
        yield _fractions(generator.random_raw(min(BLOCK, count - start)))


def uniform(count: int, *key: object) -> np.ndarray:
    """Return uniform numbers in [0, 1), float64 ``(count,)``, each of 53 random bits."""
    return _fractions(words(count, *key))


def normal(count: int, *key: object) -> np.ndarray:
    """Return standard normal numbers, float64 ``(count,)``.

    Box and Muller, A note on the generation of random normal deviates (1958).
    """
    half = (count + 1) // 2
    u = uniform(2 * half, *key)
    radius = np.sqrt(-2.0 * np.log1p(-u[:half]))
    angle = 2.0 * np.pi * u[half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def permutation(count: int, *key: object) -> np.ndarray:
    """Return a permutation of ``range(count)``, int64, by sorting random words.

    Two equal words (probability below 1e-7 for a million) keep their order. NumPy sorts 16-bit
    integers by radix, and what is nearly sorted fast: sorting by the upper 16 bits before sorting
    by all 64 gives the same order in a third of the time.
    """
    random = words(count, *key)
    nearly = np.argsort((random >> np.uint64(48)).astype(np.uint16), kind="stable")
    return nearly[np.argsort(random[nearly], kind="stable")]
