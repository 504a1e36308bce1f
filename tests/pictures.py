"""Small real images in three channels: the digits, always at hand, and CIFAR-10 where staged."""

import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import files
from lockstep.datasets import arrays, manifest, shards
from lockstep.datasets.sources import digits
from tests.conftest import staged

Pictures = tuple[np.ndarray, np.ndarray]
"""Images uint8 ``(N, height, width, channels)`` and their labels."""


def shard(path: Path, images: np.ndarray, labels: np.ndarray, classes: int = 10) -> manifest.Entry:
    """Write a shard of labelled images; returns what a manifest says of it."""
    described = arrays.image_arrays(images.shape[1:], classes)
    about = {"split": path.name.split("-")[0]}
    content = shards.write(path, described, arrays.labelled(images, labels), about)
    return manifest.entry(path, len(images), content)


def said(shape: tuple[int, ...], classes: int = 10) -> dict[str, Any]:
    """Return what a manifest says of labelled images."""
    return manifest.said(arrays.image_arrays(shape, classes))


def coloured(side: int = 14) -> dict[str, Pictures]:
    """Both splits: each channel is the digit moved by another pixel, cut to `side`."""
    splits = {}
    for split, stored in digits.read(Path(), {}):
        image = stored["image"][..., 0]
        moved = [np.roll(image, k, axis=(1, 2))[:, ::2, ::2] for k in (0, 2, 4)]
        splits[split] = (np.stack(moved, axis=-1)[:, :side, :side], stored["label"])
    return splits


def write(folder: Path, splits: dict[str, Pictures]) -> Path:
    """Write a dataset of ten classes as preprocessing does; returns its manifest."""
    folder.mkdir(parents=True)
    entries = {}
    for split, (images, labels) in splits.items():
        entries[split] = [shard(folder / f"{split}-00000.h5", images, labels)]
    about = {
        "name": folder.name,
        "identity": "0" * 64,
        "source": "digits",
        "licence": digits.LICENCE,
        "classes": list(digits.CLASSES),
        **said(images.shape[1:]),
    }
    files.write_json(folder / "manifest.json", manifest.make(about, entries))
    return folder / "manifest.json"


def cifar10(raw: Path, train: int, test: int) -> Path:
    """Unpack the first of CIFAR-10's JPEG files, so many of each class and split; returns `raw`."""
    many, found = {"train": train, "test": test}, Counter[Path]()
    with tarfile.open(staged("cifar10") / "cifar10-jpeg.tar.gz") as members:
        for member in members:
            folder = Path(member.name).parent
            if not member.isfile() or found[folder] == many[folder.parent.name]:
                continue
            if not found[folder]:
                (raw / folder).mkdir(parents=True)
            found[folder] += 1
            content = members.extractfile(member)
            assert content is not None
            (raw / member.name).write_bytes(content.read())
    return raw
