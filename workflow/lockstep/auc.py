"""The area under the ROC curve, exactly: by counting pairs in integers, for both frameworks once.

It is the share of pairs of a clicked and another example of which the clicked one has the larger
score, an equal pair counted as half (Hanley and McNeil, 1982). Scores are logits: of probabilities
many are rounded to 1, and their order is lost.

Of very many examples two histograms over the bits of the logits are kept instead, which add up over
batches and ranks whatever their order. They count examples of one bin as equal: with `BITS` bits
the area is off by about 1e-7.
"""

from collections.abc import Mapping

import numpy as np

BITS = 20  # of a float32's sign, exponent and upper fraction: 1/2048 between two bins

Arrays = Mapping[str, np.ndarray]


def area(scores: np.ndarray, clicked: np.ndarray) -> float:
    """Return the area under the curve; 0.5 where all examples are of one kind.

    Args:
        scores: ``(N,)``.
        clicked: 0 or 1, ``(N,)``.
    """
    if not len(scores):
        return 0.5
    order = np.argsort(scores, kind="stable")
    ordered, clicked = scores[order], clicked[order].astype(np.int64)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    positives = np.add.reduceat(clicked, starts)
    sizes = np.diff(starts, append=len(ordered))
    return area_of_counts(sizes - positives, positives)


def area_of_counts(negatives: np.ndarray, positives: np.ndarray) -> float:
    """Return the area from how many examples there are of each score, int64, the lowest first."""
    total = int(negatives.sum()) * int(positives.sum())
    if not total:
        return 0.5
    below = np.cumsum(negatives) - negatives
    # Twice the number of pairs in order: at most 2^63 up to 2e9 examples of each kind.
    twice = int((positives * (2 * below + negatives)).sum())
    return twice / (2 * total)


def histograms(scores: np.ndarray, clicked: np.ndarray) -> dict[str, np.ndarray]:
    """Return how many examples of each kind a bin has, int64 ``(2^BITS,)`` each."""
    bits = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)  # -0 becomes 0
    # An order of floats as unsigned integers: negative ones are turned round.
    bits = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    bins, size = (bits >> np.uint32(32 - BITS)).astype(np.int64), 1 << BITS
    return {
        "negatives": np.bincount(bins[clicked == 0], minlength=size),
        "positives": np.bincount(bins[clicked != 0], minlength=size),
    }


def entropy(positives: float, examples: float) -> float:
    """Return the loss of always saying the share of clicks; 1 where all are of one kind."""
    share = positives / examples
    if not 0 < share < 1:
        return 1.0
    return float(-share * np.log(share) - (1 - share) * np.log1p(-share))
