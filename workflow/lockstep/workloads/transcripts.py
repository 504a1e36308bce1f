"""From a model's best letter of each frame to a transcript, and how many errors it has; integers.

Rates are quotients of sums over all examples: errors (replaced, missing and added letters or words:
the distance of Levenshtein, 1966) over letters or words of the references.
"""

from collections.abc import Mapping, Sequence

import numpy as np

BLANK, SPACE = 0, 0  # among a head's outputs; among letters, of which the k-th is output k + 1
COUNTS = ("letter_errors", "letters", "word_errors", "words")


def decoded(best: np.ndarray) -> np.ndarray:
    """Return the letters that a row of outputs says: repetitions are one, blanks none.

    Args:
        best: the likeliest output of each frame, integers ``(T,)``; blanks behind the last one.
    """
    changes = np.concatenate([[True], best[1:] != best[:-1]])
    return best[changes & (best != BLANK)] - 1


def words(letters: np.ndarray) -> list[bytes]:
    """Return the words of some letters, each as bytes that can be compared."""
    edges = np.flatnonzero(letters == SPACE)
    parts = np.split(letters, edges)
    found = [part[part != SPACE] for part in parts]
    return [part.astype("<i4").tobytes() for part in found if len(part)]


def distance(one: Sequence[object], other: Sequence[object]) -> int:
    """Return how many replacements, deletions and insertions make one sequence of the other."""
    number: dict[object, int] = {}
    first, second = (np.array([number.setdefault(x, len(number)) for x in s]) for s in (one, other))
    place = np.arange(len(second) + 1)
    row = place
    for item in first:
        replaced = row[:-1] + (second != item)
        best = np.minimum(replaced, row[1:] + 1)
        # Insertions: each place may be reached from any before it, one error a step.
        row = np.minimum.accumulate(np.concatenate([row[:1] + 1, best]) - place) + place
    return int(row[-1])


def counted(best: np.ndarray, tokens: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Return the integers that error rates are made of, summed over some examples.

    Args:
        best: see `decoded`, ``(n, T)``.
        tokens: letters of the references, ``(n, L)``.
        labels: how many each has, ``(n,)``.
    """
    total = dict.fromkeys(COUNTS, 0)
    for row, letters, length in zip(best, tokens, labels):
        said, meant = decoded(row), letters[:length]
        total["letter_errors"] += distance(said.tolist(), meant.tolist())
        total["letters"] += int(length)
        total["word_errors"] += distance(words(said), words(meant))
        total["words"] += len(words(meant))
    return {name: np.array(value) for name, value in total.items()}


def rates(counts: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the error rate of letters and of words; of references without any, the errors."""
    return {
        name: float(counts[f"{kind}_errors"]) / max(1, int(counts[f"{kind}s"]))
        for name, kind in (("character_error_rate", "letter"), ("word_error_rate", "word"))
    }
