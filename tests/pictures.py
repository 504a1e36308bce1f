"""The digits as small coloured pictures: real images in three channels, always at hand."""

from pathlib import Path

import numpy as np

from lockstep import files
from lockstep.datasets import prepare, shards
from lockstep.datasets.sources import digits


def coloured(side: int = 14) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Both splits: each channel is the digit moved by another pixel, cut to `side`."""
    splits = {}
    for split, images, labels in digits.read(Path(), {}):
        moved = [np.roll(images[..., 0], k, axis=(1, 2))[:, ::2, ::2] for k in (0, 2, 4)]
        splits[split] = (np.stack(moved, axis=-1)[:, :side, :side], labels)
    return splits


def write(folder: Path, splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    """Write a dataset as preprocessing does; returns its manifest."""
    folder.mkdir(parents=True)
    entries = {}
    for split, (images, labels) in splits.items():
        path = folder / f"{split}-00000.h5"
        shard = {
            "file": path.name,
            "examples": len(images),
            "content": shards.write(path, images, labels, {"split": split}),
            "bytes": path.stat().st_size,
            "sha256": files.sha256_file(path),
        }
        entries[split] = {"examples": len(images), "shards": [shard]}
    manifest = {
        "schema": prepare.SCHEMA,
        "name": folder.name,
        "source": "digits",
        "identity": "0" * 64,
        "content": files.digest(entries),
        "licence": digits.LICENCE,
        "classes": list(digits.CLASSES),
        "example_shape": list(images.shape[1:]),
        "splits": entries,
    }
    files.write_json(folder / "manifest.json", manifest)
    return folder / "manifest.json"
