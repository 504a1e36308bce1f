"""Small real images in three channels: the digits, always at hand, and CIFAR-10 where staged."""

import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from lockstep import files
from lockstep.datasets import manifest, shards
from lockstep.datasets.sources import digits


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


def cifar10(archive: Path, train: int, test: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return so many of CIFAR-10's JPEG files of each class and split, decoded by Pillow."""
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    with tarfile.open(archive) as members:
        for member in members:
            if not member.isfile():
                continue
            split, name, _ = member.name.split("/")
            images = found.setdefault((split, name), [])
            if len(images) < {"train": train, "test": test}[split]:
                stored = members.extractfile(member)
                assert stored is not None
                images.append(np.asarray(Image.open(stored).convert("RGB")))
    classes = sorted({name for _, name in found})
    return {
        split: (
            np.concatenate([np.stack(found[split, name]) for name in classes]),
            np.concatenate([[k] * len(found[split, name]) for k, name in enumerate(classes)]),
        )
        for split in ("train", "test")
    }
