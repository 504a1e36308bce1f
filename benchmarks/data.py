"""Datasets of any size in the format that preprocessing writes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import files
from lockstep.datasets import arrays, manifest, shards
from lockstep.datasets.sources import digits

CLASSES = 10
Split = tuple[np.ndarray, np.ndarray]


def shard(path: Path, images: np.ndarray, labels: np.ndarray) -> manifest.Entry:
    """Write a shard of labelled images; returns what a manifest says of it."""
    described = arrays.image_arrays(images.shape[1:], CLASSES)
    about = {"split": path.name.split("-")[0]}
    content = shards.write(path, described, arrays.labelled(images, labels), about)
    return manifest.entry(path, len(images), content)


def said(shape: tuple[int, ...]) -> dict[str, Any]:
    """Return what a manifest says of labelled images."""
    return manifest.said(arrays.image_arrays(shape, CLASSES))


def write(folder: Path, splits: Mapping[str, Split]) -> Path:
    """Write a dataset.

    Args:
        splits: images uint8 ``(N, height, width, channels)`` and labels of each.

    Returns:
        Its manifest.
    """
    folder.mkdir(parents=True)
    entries: dict[str, list[manifest.Entry]] = {}
    for split, (images, labels) in splits.items():
        entries[split] = [shard(folder / f"{split}-00000.h5", images, labels)]
    about = {"name": "benchmark", "source": "benchmark", "origin": "made up", "licence": "none"}
    made = manifest.make({**about, **said(images.shape[1:])}, entries)
    files.write_json(folder / "manifest.json", {**made, "identity": made["content"]})
    return folder / "manifest.json"


def noise(examples: int, shape: tuple[int, ...]) -> Split:
    """Return random images and labels, the same every time."""
    random = np.random.Generator(np.random.Philox(0))
    images = random.integers(0, 256, (examples, *shape), np.uint8)
    return images, random.integers(0, 10, examples).astype(np.int32)


def many_digits(examples: int) -> dict[str, Split]:
    """Return the digits, those for training repeated until there are so many."""
    splits = {n: (a["image"], a["label"]) for n, a in digits.read(Path(), {})}
    images, labels = splits["train"]
    which = np.arange(examples) % len(images)
    return {"train": (images[which], labels[which]), "test": splits["test"]}
