"""A batch's checksum sees every byte, every label, their order and the padding."""

import numpy as np
import pytest

from lockstep.datasets import arrays
from lockstep.datasets.checksum import ONE, Place, chain, places, slot_coefficients
from lockstep.datasets.checksum import checksum as checksum_of


def checksum(images: np.ndarray, labels: np.ndarray, count: int) -> int:
    return checksum_of(arrays.labelled(images, labels), count)


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.integers(0, 256, (8, 28, 28, 1), np.uint8), random.integers(0, 10, 8)


def test_swapped_examples_are_seen(batch) -> None:
    images, labels = batch
    swapped = [1, 0, *range(2, 8)]
    assert checksum(images[swapped], labels[swapped], 8) != checksum(images, labels, 8)


def test_a_changed_pixel_or_label_is_seen(batch) -> None:
    images, labels = batch
    whole = checksum(images, labels, 8)
    changed = images.copy()
    changed[3, 14, 14, 0] ^= 1
    assert checksum(changed, labels, 8) != whole
    assert checksum(images, np.roll(labels, 1), 8) != whole


def test_padding_adds_nothing_and_its_extent_is_seen(batch) -> None:
    images, labels = batch
    padded = images.copy()
    padded[5:] = 0
    assert checksum(images, labels, 5) == checksum(padded, labels, 5)
    assert checksum(images, labels, 5) != checksum(images, labels, 6)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 3, 3), (2, 2, 1)])
def test_any_size_of_example(shape) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, *shape), np.uint8)
    whole = checksum(images, np.zeros(4, int), 4)
    for place in np.ndindex(images.shape):
        changed = images.copy()
        changed[place] ^= 128
        assert checksum(changed, np.zeros(4, int), 4) != whole


def test_black_images_count(batch) -> None:
    images = np.zeros((4, 2, 2, 1), np.uint8)
    assert checksum(images, np.zeros(4, int), 3) != checksum(images, np.zeros(4, int), 4)


def test_shares_of_ranks_add_up(batch) -> None:
    """What the engines do: each rank sums its slots with the coefficients of its place."""
    images, labels = batch
    image, label = places(arrays.labelled(images, labels)).values()
    rows = (images.reshape(8, -1).view("<u4") * image.words).sum(1, dtype=np.uint32)
    rows += labels.astype(np.uint32) * label.words + np.uint32(ONE)
    parts = [(rows * slot_coefficients(8))[r : r + 2].sum(dtype=np.uint32) for r in range(0, 8, 2)]
    assert int(np.sum(parts, dtype=np.uint32)) == checksum(images, labels, 8)


def test_the_chain_depends_on_order() -> None:
    assert chain(np.array([1, 2], np.uint32)) != chain(np.array([2, 1], np.uint32))


@pytest.mark.parametrize("size", [1, 4, 7, 784])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_elements_by_themselves_give_the_same_sum_as_words(size: int, dtype: str) -> None:
    example = np.random.default_rng(0).integers(0, 256, size).astype(dtype)
    place = Place(first=5, elements=size, itemsize=example.itemsize)
    words = np.pad(example.view(np.uint8), (0, place.filling)).view("<u4")
    by_words = (words * place.words).sum(dtype=np.uint32)
    assert (example.astype(np.uint32) * place.each).sum(dtype=np.uint32) == by_words


def test_every_array_counts_and_so_does_which_it_is() -> None:
    batch = {name: np.arange(8, dtype=np.int32).reshape(4, 2) for name in ("tokens", "key")}
    whole = checksum_of(batch, 4)
    for name in batch:
        changed = {**batch, name: batch[name] + (batch[name] == 5)}
        assert checksum_of(changed, 4) != whole
    one, two = (batch["tokens"], batch["tokens"] + 1)
    assert checksum_of({"a": one, "b": two}, 4) != checksum_of({"a": two, "b": one}, 4)
