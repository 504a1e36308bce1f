"""How many frames a clip of speech has, how many its transcript needs, and what it is padded to.

A *frame* is what a model makes of 25 ms every 20 ms at 16 kHz: of `FRAME` samples every `STEP`.
All of it is of integers, in NumPy, PyTorch and JAX alike.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # options are checked where there is no NumPy
    import numpy as np

FRAME, STEP = 400, 320  # samples


def count(samples: Any) -> Any:
    """Return how many frames so many samples give; below `FRAME` none (or less)."""
    return (samples - FRAME) // STEP + 1


def feasible(samples: Any, needed: Any) -> Any:
    """Whether clips have a frame, and enough of them for their transcripts; of any integers."""
    found = count(samples)
    return (found >= needed) & (found > 0)


def needed(letters: Any) -> int:
    """Return the frames that a transcript needs: between two equal letters there is a blank."""
    return len(letters) + sum(one == other for one, other in itertools.pairwise(letters))


def durations(splits: "Sequence[np.ndarray]") -> list[int]:
    """Return how many clips have up to 1, 2, … times `STEP` samples, and more than before.

    Args:
        splits: samples of each clip, integers ``(n,)`` each.
    """
    import numpy as np

    return np.bincount((np.concatenate(splits) - 1) // STEP).tolist()


@functools.lru_cache(maxsize=8)
def lengths(durations: tuple[int, ...], most: int) -> tuple[int, ...]:
    """Return the lengths that leave the least padding, samples, ascending.

    Args:
        durations: how many clips have up to 1, 2, … times `STEP` samples, and more than before.
        most: lengths at most; the last one holds every clip.
    """
    import numpy as np

    places = np.flatnonzero(durations)
    counts = np.cumsum(np.asarray(durations)[places])
    ends = places + 1
    # cost[k]: the least that clips up to place k take, with the last length there.
    cost, chosen = counts * ends, [np.zeros(len(ends), int)]
    for _ in range(min(most, len(ends)) - 1):
        added = (counts[None, :] - counts[:, None]) * ends[None, :]  # from a place to a later one
        total = np.where(np.tri(len(ends), dtype=bool), np.inf, cost[:, None] + added)
        chosen.append(total.argmin(axis=0))
        cost = total.min(axis=0)
    found, place = [], len(ends) - 1
    for before in reversed(chosen):
        found.append(int(ends[place]) * STEP)
        place = int(before[place])
    return tuple(sorted(set(found)))
