"""Masked positions are a pure function of an example's key: whole words, in the right shares."""

import numpy as np

from lockstep.datasets import keys
from lockstep.workloads import masking

VOCABULARY, LENGTH = 300, 64
CONTINUES = np.arange(VOCABULARY) % 3 == 2  # every third piece continues a word
CONTINUES[:5] = False


def scheme(**changes: object) -> masking.Scheme:
    return masking.Scheme(
        **{
            "percent": 15,
            "most": 12,
            "whole_words": True,
            "special": (0, 1, 2, 3, 4),
            "mask": 4,
            "first": 5,
            "vocabulary": VOCABULARY,
            **changes,
        }
    )


def rows(count: int, length: int = LENGTH) -> np.ndarray:
    """Rows [CLS] … [SEP] … [SEP], uint16."""
    drawn = keys.words(count * length, "rows").reshape(count, length)
    tokens = (5 + drawn % np.uint64(VOCABULARY - 5)).astype(np.uint16)
    tokens[:, 0], tokens[:, -1], tokens[::2, length // 3] = 2, 3, 3
    return tokens


def keys_of(count: int) -> np.ndarray:
    return keys.words(count, "keys").view(np.int32).reshape(count, 2)


def masked(count: int = 2000, **changes: object) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    tokens = rows(count)
    return tokens, masking.masked(tokens, keys_of(count), CONTINUES, scheme(**changes))


def test_labels_are_the_tokens_and_nothing_else_changes() -> None:
    tokens, batch = masked()
    row, slot = np.nonzero(batch["counts"])
    place = batch["positions"][row, slot]
    np.testing.assert_array_equal(batch["labels"][row, slot], tokens[row, place])
    hidden = np.zeros(tokens.shape, bool)
    hidden[row, place] = True
    assert hidden.sum() == len(row)  # no position twice
    np.testing.assert_array_equal(batch["ids"][~hidden], tokens[~hidden])
    assert not np.isin(batch["labels"][row, slot], range(5)).any()
    filling = batch["counts"] == 0
    assert not batch["positions"][filling].any()
    assert not batch["labels"][filling].any()


def test_as_many_are_masked_as_the_weight_says_whatever_the_draw() -> None:
    tokens, batch = masked()
    maskable = (tokens >= 5).sum(axis=1)
    np.testing.assert_array_equal(batch["counts"].sum(axis=1), masking.wanted(maskable, 15, 12))
    assert masking.wanted(np.array([0, 1, 10, 100, 200]), 15, 12).tolist() == [0, 1, 2, 12, 12]


def test_the_kinds_have_their_shares() -> None:
    _, batch = masked()
    row, slot = np.nonzero(batch["counts"])
    place, label = batch["positions"][row, slot], batch["labels"][row, slot]
    shown = batch["ids"][row, place]
    assert abs((shown == 4).mean() - 0.8) < 0.015
    assert abs((shown == label).mean() - 0.1) < 0.012
    other = shown[(shown != 4) & (shown != label)]
    assert other.min() >= 5
    assert other.max() < VOCABULARY
    assert len(np.unique(other)) > 200


def test_the_pieces_of_a_word_are_masked_together() -> None:
    tokens, batch = masked()
    for whole in (True, False):
        batch = masking.masked(tokens, keys_of(len(tokens)), CONTINUES, scheme(whole_words=whole))
        hidden = np.zeros(tokens.shape, bool)
        row, slot = np.nonzero(batch["counts"])
        hidden[row, batch["positions"][row, slot]] = True
        continuing = CONTINUES[tokens[:, 1:]]
        # At most one word a row, the last one chosen, is cut.
        torn = (continuing & (hidden[:, 1:] != hidden[:, :-1]) & (tokens[:, :-1] >= 5)).sum(axis=1)
        assert (torn.max() <= 1) == whole


def test_every_position_is_as_probable() -> None:
    tokens = np.full((6000, LENGTH), 6, np.uint16)
    batch = masking.masked(tokens, keys_of(6000), CONTINUES, scheme(whole_words=False))
    row, slot = np.nonzero(batch["counts"])
    found = np.bincount(batch["positions"][row, slot], minlength=LENGTH)
    assert abs(found / found.mean() - 1).max() < 0.15


def test_an_example_is_masked_by_its_key_alone() -> None:
    tokens, whole = masked(40)
    part = masking.masked(tokens[7:9], keys_of(40)[7:9], CONTINUES, scheme())
    for name, array in part.items():
        np.testing.assert_array_equal(array, whole[name][7:9])
    other = masking.masked(tokens, keys_of(80)[40:], CONTINUES, scheme())
    assert (other["positions"] != whole["positions"]).mean() > 0.5


def test_a_row_without_words_has_nothing_masked() -> None:
    tokens = np.zeros((2, LENGTH), np.uint16)
    tokens[:, 0] = 2
    batch = masking.masked(tokens, keys_of(2), CONTINUES, scheme())
    assert not batch["counts"].any()
    np.testing.assert_array_equal(batch["ids"], tokens)


def test_rows_shorter_than_the_positions_are_filled() -> None:
    tokens = rows(3, 8)
    batch = masking.masked(tokens, keys_of(3), CONTINUES, scheme(percent=99))
    assert batch["positions"].shape == (3, 12)
    np.testing.assert_array_equal(batch["counts"].sum(axis=1), (tokens >= 5).sum(axis=1))


def test_masks_are_those_of_ever() -> None:
    # Runs of different versions are comparable only as long as these stay.
    tokens = np.arange(5, 21, dtype=np.uint16)[None]
    batch = masking.masked(tokens, np.array([[1, 2]], np.int32), CONTINUES, scheme(most=3))
    assert batch["positions"].tolist() == [[10, 14, 0]]
    assert batch["labels"].tolist() == [[15, 19, 0]]
    assert batch["ids"][0, [10, 14]].tolist() == [4, 4]
