"""JPEG files like photographs, as many as one wants: smooth colours with noise, the same always."""

from pathlib import Path

import numpy as np
from PIL import Image

DIFFERENT = 50
"""Images that are encoded; the others are copies of them."""


def folder(raw: Path, count: int, size: tuple[int, int]) -> Path:
    """Write `raw/SPLIT/CLASS/NUMBER.jpg`: two classes, `count` for training, two for testing."""
    contents = [encoded(raw.parent / "one.jpg", seed, size) for seed in range(DIFFERENT)]
    for split, number in (("train", count), ("test", 2)):
        for index in range(number):
            where = raw / split / "ab"[index % 2]
            where.mkdir(parents=True, exist_ok=True)
            (where / f"{index:07d}.jpg").write_bytes(contents[index % DIFFERENT])
    return raw


def encoded(scratch: Path, seed: int, size: tuple[int, int]) -> bytes:
    """Return one file's bytes, quality 90: 500 x 375 take 70 KB, where ImageNet's take 110."""
    random = np.random.Generator(np.random.Philox(seed))
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8))
    smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(int)
    noise = random.integers(-20, 21, smooth.shape)
    Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).save(scratch, quality=90)
    return scratch.read_bytes()
