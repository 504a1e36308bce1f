"""Small real images in three channels: the digits, always at hand, and CIFAR-10 where staged."""

import tarfile
from collections import Counter
from pathlib import Path

import numpy as np

from lockstep import files
from lockstep.datasets import manifest, shards
from lockstep.datasets.sources import digits
from tests.conftest import staged


def coloured(side: int = 14) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Both splits: each channel is the digit moved by another pixel, cut to `side`."""
    splits = {}
    for split, images, labels in digits.read(Path(), {}):
        moved = [np.roll(images[..., 0], k, axis=(1, 2))[:, ::2, ::2] for k in (0, 2, 4)]
        splits[split] = (np.stack(moved, axis=-1)[:, :side, :side], labels)
    return splits


def write(folder: Path, splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    """Write a dataset of ten classes as preprocessing does; returns its manifest."""
    folder.mkdir(parents=True)
    entries = {}
    for split, (images, labels) in splits.items():
        path = folder / f"{split}-00000.h5"
        content = shards.write(path, images, labels, {"split": split})
        entries[split] = [manifest.entry(path, len(images), content)]
    about = {
        "name": folder.name,
        "identity": "0" * 64,
        "source": "digits",
        "licence": digits.LICENCE,
        "classes": list(digits.CLASSES),
        "example_shape": list(images.shape[1:]),
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
