"""Masked positions of a masked language model: a pure function of an example's key, in integers.

A share of a row's tokens, of whole words at random, is to be predicted: 80% of them are replaced by
[MASK], 10% by a random token, 10% stay (Devlin et al., BERT, 2019). All choices are made from the
words of `lockstep.workloads.randomness`, so that they are the same on every machine.
"""

from dataclasses import dataclass

import numpy as np

from lockstep.workloads import randomness

SITES = (1 << 20, (1 << 20) + 1, (1 << 20) + 2)  # of words, of kinds and of random tokens
MASKED, REPLACED = 8, 9  # of ten: below the first [MASK], below the second a random token
_LAST = np.uint64(np.iinfo(np.uint64).max)


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How rows are masked.

    Attributes:
        percent: of a row's tokens to be predicted, special ones not counted.
        most: positions of a row at most.
        whole_words: whether the pieces of a word are masked together; the last chosen word may be
            cut, so that the number of positions depends on the row's length alone.
        special: ids that are never masked.
        mask: id of [MASK].
        first, vocabulary: random tokens are drawn from ``[first, vocabulary)``.
    """

    percent: int
    most: int
    whole_words: bool
    special: tuple[int, ...]
    mask: int
    first: int
    vocabulary: int


def wanted(maskable: np.ndarray, percent: int, most: int) -> np.ndarray:
    """Return how many positions are masked, int64 ``(n,)``; at least one where there is a token.

    Args:
        maskable: tokens of each row that are not special, integers ``(n,)``.
    """
    count = maskable.astype(np.int64)
    return np.where(count > 0, np.clip((percent * count + 50) // 100, 1, most), 0)


def masked(
    tokens: np.ndarray, keys: np.ndarray, continues: np.ndarray, scheme: Scheme
) -> dict[str, np.ndarray]:
    """Return what a model is shown and what it is to predict.

    Args:
        tokens: unsigned integers ``(n, S)``.
        keys: of the examples, int32 or uint32 ``(n, 2)``.
        continues: which ids continue a word, bool ``(vocabulary,)``.

    Returns:
        `ids` int32 ``(n, S)``: the tokens after masking. `positions` and `labels` int32
        ``(n, most)``: where a token is to be predicted, and which. `counts` uint8 ``(n, most)``:
        1 for those, 0 for filling, whose position and label are 0.
    """
    rows, length = tokens.shape
    ids = tokens.astype(np.int32)
    maskable = ~np.isin(ids, np.array(scheme.special, np.int32))
    order = _order(ids, keys, continues, maskable, scheme)
    count = wanted(maskable.sum(axis=1), scheme.percent, scheme.most)
    counts = np.arange(scheme.most) < count[:, None]
    chosen = np.zeros((rows, scheme.most), np.int64)
    room = min(scheme.most, length)
    chosen[:, :room] = order[:, :room]
    positions = np.where(counts, chosen, 0)
    labels = np.where(counts, np.take_along_axis(ids, positions, axis=1), 0)
    shown = np.take_along_axis(_replacements(ids, keys, scheme), positions, axis=1)
    row, slot = np.nonzero(counts)
    ids[row, positions[row, slot]] = shown[row, slot]
    return {
        "ids": ids,
        "positions": positions.astype(np.int32),
        "labels": labels.astype(np.int32),
        "counts": counts.astype(np.uint8),
    }


def _order(
    ids: np.ndarray,
    keys: np.ndarray,
    continues: np.ndarray,
    maskable: np.ndarray,
    scheme: Scheme,
) -> np.ndarray:
    """Return the positions of each row, those that are masked first, int64 ``(n, S)``."""
    length = ids.shape[1]
    number = np.broadcast_to(np.arange(length), ids.shape)
    if scheme.whole_words:
        number = np.cumsum(~(continues[ids] & maskable), axis=1) - 1
    drawn = randomness.words(keys, SITES[0], length)
    rank = np.take_along_axis(drawn, number, axis=1).astype(np.uint64) << np.uint64(32)
    rank |= np.arange(length, dtype=np.uint64)  # equal hashes, as of a word's pieces, in order
    return np.argsort(np.where(maskable, rank, _LAST), axis=1, kind="stable")


def _replacements(ids: np.ndarray, keys: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Return what would stand at each position if it were masked, int32 ``(n, S)``."""
    length = ids.shape[1]
    kind = randomness.integers(keys, SITES[1], (length,), 10)
    drawn = randomness.integers(keys, SITES[2], (length,), scheme.vocabulary - scheme.first)
    other = np.where(kind < REPLACED, drawn + scheme.first, ids)
    return np.where(kind < MASKED, scheme.mask, other).astype(np.int32)
