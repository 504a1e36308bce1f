"""From a source's raw files to a dataset's folder: shards and a manifest, all or nothing."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lockstep import files
from lockstep.datasets import making, manifest, progress, sharded, shards, sources
from lockstep.errors import UserError


def prepare(
    name: str,
    entry: Mapping[str, Any],
    identity: str,
    raw: Path,
    folder: Path,
    *,
    workers: int | None = None,
    part: tuple[int, int] = (1, 1),
) -> None:
    """Preprocess a dataset, unless its folder is there.

    Args:
        name: of the config's entry.
        entry: the config's entry: `source` and `options`.
        identity: hash of what determines the dataset, for the manifest.
        raw: folder with the source's raw files.
        folder: folder to make; it appears when it is complete.
        workers: processes for a source of many files; what this process may use if None.
        part: ``(i, n)`` makes the i-th n-th of the shards of a source of many files alone; of
            another source, nothing.

    Raises:
        UserError: raw files are missing, damaged or contradictory.
    """
    if making.finished(folder):
        progress.say(f"{name}: is in {folder}; remove that folder to have it made anew")
        return
    for path in making.others(folder):
        progress.say(
            f"{name}: {path} holds {files.size(path) / 1e9:.1f} GB of a start with other options "
            "or other code; remove it unless somebody goes on with that"
        )
    source = sources.load(entry["source"])
    named = {"name": name, "identity": identity, "source": entry["source"]}
    options = dict(entry["options"])
    if not hasattr(source, "survey"):
        if part[1] > 1:
            progress.say(f"{name}: is made at one go; start once without --part, nothing was done")
            return
        with making.held(folder) as missing:
            if missing:
                try:
                    _whole(source, named, options, raw, folder)
                finally:
                    files.remove(making.partial(folder))
        return
    survey = source.survey(raw, options)
    about = {
        **named,
        "origin": survey.origin,
        "licence": survey.licence,
        "classes": list(survey.classes),
        "options": options,
        "tools": dict(survey.tools),
    }
    workers = workers or len(os.sched_getaffinity(0))
    sharded.prepare(about, survey, raw, folder, workers=workers, part=part)


def _whole(
    source: ModuleType,
    named: Mapping[str, Any],
    options: Mapping[str, Any],
    raw: Path,
    folder: Path,
) -> None:
    """Preprocess a source that yields whole splits: a shard each."""
    splits: dict[str, list[manifest.Entry]] = {}
    said = {
        "origin": source.ORIGIN,
        "licence": source.LICENCE,
        "classes": list(source.CLASSES),
        "options": options,
    }
    with files.atomic(folder) as temporary:
        temporary.mkdir()
        for split, images, labels in source.read(raw, options):
            where = f"{named['name']}: source {named['source']}: {split}"
            _check(where, images, labels, source.CLASSES)
            path = temporary / f"{split}-00000.h5"
            about = {"split": split, "source": named["source"], **said}
            content = shards.write(path, images, labels, about)
            splits[split] = [manifest.entry(path, len(images), content)]
        about = {**named, **said, "example_shape": list(images.shape[1:])}
        files.write_json(temporary / "manifest.json", manifest.make(about, splits))


def _check(where: str, images: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> None:
    """Check that a split can be stored as it is: nothing is cast, cut or filled up in silence."""
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(
            f"{where}: images are {_kind(images)}; they must be uint8 (N, height, width, channels)"
        )
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise UserError(f"{where}: labels are {_kind(labels)}; they must be integers (N,)")
    if len(images) != len(labels):
        raise UserError(
            f"{where}: {len(images)} images and {len(labels)} labels; each image needs one label"
        )
    if len(images) == 0:
        raise UserError(f"{where}: holds no examples")
    # JAX clamps a label that is out of range, PyTorch raises: neither may ever see one.
    if labels.min() < 0 or labels.max() >= len(classes):
        raise UserError(
            f"{where}: labels go from {labels.min()} to {labels.max()}; "
            f"they must be from 0 to {len(classes) - 1}"
        )


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}"
