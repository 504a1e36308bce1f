"""From a source's raw files to a dataset's folder: shards and a manifest, all or nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import files
from lockstep.datasets import shards, sources
from lockstep.errors import UserError

SCHEMA = "lockstep-dataset/1"


def prepare(name: str, entry: Mapping[str, Any], identity: str, raw: Path, folder: Path) -> None:
    """Preprocess a dataset.

    Args:
        name: of the config's entry.
        entry: the config's entry: `source` and `options`.
        identity: hash of what determines the dataset, for the manifest.
        raw: folder with the source's raw files.
        folder: folder to make; it appears when it is complete.

    Raises:
        UserError: raw files are missing, damaged or contradictory.
    """
    source = sources.load(entry["source"])
    splits: dict[str, Any] = {}
    with files.atomic(folder) as temporary:
        temporary.mkdir()
        for split, images, labels in source.read(raw, entry["options"]):
            _check(f"{name}: {split}", images, labels, source.CLASSES)
            about = {
                "split": split,
                "source": entry["source"],
                "origin": source.ORIGIN,
                "licence": source.LICENCE,
                "classes": list(source.CLASSES),
                "options": dict(entry["options"]),
            }
            path = temporary / f"{split}-00000.h5"
            content = shards.write(path, images, labels, about)
            shard = {
                "file": path.name,
                "examples": len(images),
                "bytes": path.stat().st_size,
                "content": content,
                "sha256": files.sha256_file(path),
            }
            splits[split] = {"examples": len(images), "shards": [shard]}
        manifest = {
            "schema": SCHEMA,
            "name": name,
            "identity": identity,
            "content": files.digest(
                {split: [s["content"] for s in value["shards"]] for split, value in splits.items()}
            ),
            "source": entry["source"],
            "origin": source.ORIGIN,
            "licence": source.LICENCE,
            "classes": list(source.CLASSES),
            "options": dict(entry["options"]),
            "example_shape": list(images.shape[1:]),
            "splits": splits,
        }
        files.write_json(temporary / "manifest.json", manifest)


def _check(where: str, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    # JAX clamps a label that is out of range, PyTorch raises: neither may ever see one.
    if len(images) == 0:
        raise UserError(f"{where}: holds no examples")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise UserError(
            f"{where}: labels go from {labels.min()} to {labels.max()}; "
            f"they must be from 0 to {len(classes) - 1}"
        )
