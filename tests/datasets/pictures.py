"""Small JPEG files for tests, made anew: smooth colours with some noise."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee", "cat")


def pixels(seed: int, width: int, height: int) -> np.ndarray:
    """An image uint8 (height, width, 3)."""
    random = np.random.Generator(np.random.Philox(seed))
    coarse = Image.fromarray(random.integers(0, 256, (3, 4, 3), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return np.clip(smooth + random.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, mode: str = "RGB", kind: str = "JPEG") -> bytes:
    """The image as a file's bytes."""
    stream = io.BytesIO()
    Image.fromarray(image).convert(mode).save(stream, kind, quality=90)
    return stream.getvalue()


def folder(raw: Path, train: int = 4, test: int = 2, size: tuple[int, int] = (40, 30)) -> Path:
    """Write `raw/SPLIT/CLASS/NUMBER.jpg`, so many of each class."""
    for split, count in (("train", train), ("test", test)):
        for label, name in enumerate(CLASSES):
            where = raw / split / name
            where.mkdir(parents=True)
            for number in range(count):
                seed = (number * len(CLASSES) + label) * 2 + (split == "test")
                (where / f"{number:04d}.jpg").write_bytes(jpeg(pixels(seed, *size)))
    return raw
