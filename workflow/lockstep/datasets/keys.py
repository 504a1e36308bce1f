"""Random numbers as pure functions of names: a counter-based generator keyed by a hash.

Only raw 64-bit words are taken from the bit generator, because NumPy promises that these stay the
same in every version; it does not promise that for its distributions (NEP 19).
"""

import hashlib

import numpy as np


def words(count: int, *key: object) -> np.ndarray:
    """Return `count` random words, uint64 ``(count,)``, that depend on `key` alone.

    Philox 4x64: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (SC 2011).
    """
    hashed = hashlib.sha256("\0".join(map(str, key)).encode()).digest()
    generator = np.random.Philox(key=np.frombuffer(hashed[:16], "<u8"))
    return generator.random_raw(count)


def uniform(count: int, *key: object) -> np.ndarray:
    """Return uniform numbers in [0, 1), float64 ``(count,)``, each of 53 random bits."""
    return (words(count, *key) >> np.uint64(11)) * 2.0**-53


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
