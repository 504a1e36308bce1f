"""From a source's raw files to a dataset's folder: shards and a manifest, all or nothing."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lockstep import files
from lockstep.datasets import making, manifest, progress, sharded, shards, sources
from lockstep.datasets.arrays import Array, Stored
from lockstep.datasets.arrays import of_values as array_of
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
    sources.settle(entry)
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
    file = entry.get("file")
    sharded.prepare(about, survey, raw, folder, workers=workers, part=part, file=file)


def _whole(
    source: ModuleType,
    named: Mapping[str, Any],
    options: Mapping[str, Any],
    raw: Path,
    folder: Path,
) -> None:
    """Preprocess a source that yields whole splits: a shard each."""
    splits: dict[str, list[manifest.Entry]] = {}
    classes = list(getattr(source, "CLASSES", ())) or None
    said = {
        "origin": source.ORIGIN,
        "licence": source.LICENCE,
        "classes": classes,
        "options": options,
    }
    described: dict[str, Array] = {}
    with files.atomic(folder) as temporary:
        temporary.mkdir()
        reading = source.read(raw, options)
        extra: dict[str, np.ndarray] = {}
        told: dict[str, Any] = {}
        for split, arrays in reading:
            where = f"{named['name']}: source {named['source']}: {split}"
            found = _checked(where, arrays, classes)
            if described and found != described:
                raise UserError(f"{where}: its arrays are not those of the other splits")
            if not described and hasattr(source, "describe"):
                told, more = source.describe(raw, options)
                extra = {f"extra/{name}": array for name, array in more.items()}
            described = found
            path = temporary / f"{split}-00000.h5"
            about = {"split": split, "source": named["source"], **said}
            content = shards.write(path, described, arrays, about, extra)
            splits[split] = [manifest.entry(path, len(next(iter(arrays.values()))), content)]
        about = {**named, **said, **manifest.said(described), "facts": dict(told)}
        files.write_json(temporary / "manifest.json", manifest.make(about, splits))


def _checked(
    where: str, arrays: Mapping[str, Stored], classes: list[str] | None
) -> dict[str, Array]:
    """Return what a split's arrays are, which can be stored: nothing is cast or cut in silence."""
    found = {}
    for name, values in arrays.items():
        if not shards.NAME.fullmatch(name) or name in shards.RESERVED:
            raise UserError(f"{where}: {name!r} is no name of an array")
        high = len(classes) if classes and name == "label" else None
        try:
            found[name] = array_of(name, values, high)
        except ValueError as error:
            raise UserError(f"{where}: {error}") from error
        if high is not None:
            _check_labels(where, values, high)
    if "image" in found and (found["image"].dtype, len(found["image"].shape)) != ("uint8", 3):
        kind = _kind(arrays["image"])
        raise UserError(
            f"{where}: images are {kind}; they must be uint8 (N, height, width, channels)"
        )
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(
            f"{where}: {', '.join(f'{n} {name}s' for name, n in lengths.items())}; each example "
            "needs one of each"
        )
    if not any(lengths.values()):
        raise UserError(f"{where}: holds no examples")
    return found


def _check_labels(where: str, labels: Stored, high: int) -> None:
    """JAX clamps a label that is out of range, PyTorch raises: neither may ever see one."""
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int32 or labels.ndim != 1:
        raise UserError(f"{where}: labels are {_kind(labels)}; they must be int32 (N,)")
    if len(labels) and (labels.min() < 0 or labels.max() >= high):
        raise UserError(
            f"{where}: labels go from {labels.min()} to {labels.max()}; "
            f"they must be from 0 to {high - 1}"
        )


def _kind(array: Stored) -> str:
    return f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "ragged"
