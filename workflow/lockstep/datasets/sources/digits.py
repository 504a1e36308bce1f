"""The handwritten digits that scikit-learn carries: 1,797 images of 8x8, brought to 28x28."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.datasets.arrays import Split, labelled

ORIGIN = "UCI Optical Recognition of Handwritten Digits (test part), E. Alpaydin and C. Kaynak"
LICENCE = "CC BY 4.0"
EXAMPLES = 1437  # for training
CLASSES = tuple(str(digit) for digit in range(10))

TEST_EVERY = 5  # every fifth image is for testing: 360 of them; 1,437 are for training


def read(raw: Path, options: Mapping[str, Any]) -> Iterator[Split]:
    """Yield the two splits. Nothing is read from `raw`: the data are embedded in scikit-learn.

    Each pixel (0 to 16) becomes a 3x3 square of its value scaled to 0 to 255, with a margin of
    two black pixels.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    images = np.pad(pixels.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    test = np.arange(len(images)) % TEST_EVERY == 0
    yield "train", labelled(images[~test][..., None], digits.target[~test])
    yield "test", labelled(images[test][..., None], digits.target[test])
