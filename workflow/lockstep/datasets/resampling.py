"""Another sampling rate, in integers: the same bytes on every machine.

A polyphase low-pass filter (a sinc of ten zero crossings on each side in a Kaiser window of beta 5,
the design of `scipy.signal.resample_poly`) whose taps are rounded to integers once; samples and
taps are multiplied and summed in int64, and the sum is rounded once. No order of summation and no
fused multiplication can change it. What a tap is rounded to could differ between two mathematical
libraries only where it lies within 1e-9 of half a step: a manifest has the taps' hash (`digest`).
"""

import functools
import hashlib
import math

import numpy as np

CROSSINGS, BETA = 10, 5.0
FRACTION = 24  # bits of a tap behind the point
ROWS = 1 << 16  # samples that are computed at a time


def resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Return a signal at another rate, int16 ``(ceil(n * wanted / rate),)``.

    Args:
        samples: int16 ``(n,)``.
        rate, wanted: in Hz.
    """
    common = math.gcd(rate, wanted)
    up, down = wanted // common, rate // common
    bank = taps(up, down)
    half, width = CROSSINGS * max(up, down), bank.shape[1]
    count = -(-len(samples) * up // down)
    # Sample m lies at m * down of the signal with up - 1 zeros between its samples.
    place = np.arange(count) * down + half
    phase, last = place % up, place // up
    padded = np.zeros(width + max(len(samples), int(last.max(initial=0)) + 1), np.int64)
    padded[width - 1 : width - 1 + len(samples)] = samples
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    result = np.empty(count, np.int16)
    for start in range(0, count, ROWS):
        rows = slice(start, start + ROWS)
        total = (windows[last[rows]] * bank[phase[rows]]).sum(axis=1)
        rounded = (total + (1 << FRACTION - 1)) >> FRACTION
        result[rows] = np.clip(rounded, -(1 << 15), (1 << 15) - 1)
    return result


@functools.lru_cache(maxsize=32)
def taps(up: int, down: int) -> np.ndarray:
    """Return the filter of each phase, the last sample's tap last, int64 ``(up, taps)``."""
    widest = max(up, down)
    half = CROSSINGS * widest
    place = np.arange(-half, half + 1)
    shape = np.sinc(place / widest) * np.kaiser(2 * half + 1, BETA)
    exact = np.rint(shape * (up / shape.sum()) * (1 << FRACTION)).astype(np.int64)
    width = -(-len(exact) // up)
    filled = np.zeros(width * up, np.int64)
    filled[: len(exact)] = exact
    return np.ascontiguousarray(filled.reshape(width, up).T[:, ::-1])


def digest(rate: int, wanted: int) -> str:
    """Return a hash of the taps that lead from one rate to another."""
    common = math.gcd(rate, wanted)
    content = taps(wanted // common, rate // common).astype("<i8").tobytes()
    return hashlib.sha256(content).hexdigest()[:16]
