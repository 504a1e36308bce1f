"""Datasets of any size in the format that preprocessing writes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import files
from lockstep.datasets import arrays, manifest, shards, wordpiece
from lockstep.datasets.reader import Reader
from lockstep.datasets.sources import digits

CLASSES = 10
Functions = dict[str, Callable[[], object]]
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
    return _finish(folder, entries, said(images.shape[1:]))


def write_tokens(folder: Path, examples: int, length: int, pieces: int) -> Path:
    """Write rows of random tokens as source `text` makes them, a tenth as many for testing.

    Returns:
        The manifest.
    """
    folder.mkdir(parents=True)
    random = np.random.Generator(np.random.Philox(0))
    specials = len(wordpiece.SPECIALS)
    words = [f"{wordpiece.PREFIX * (k % 2)}{k}" for k in range(pieces - specials)]
    facts = wordpiece.facts((*wordpiece.SPECIALS, *words), lower=True)
    entries: dict[str, list[manifest.Entry]] = {}
    for split, count in (("train", examples), ("test", examples // 10)):
        tokens = random.integers(specials, pieces, (count, length)).astype(np.uint16)
        tokens[:, 0], tokens[:, -1] = facts["special"]["cls"], facts["special"]["sep"]
        rows = {"tokens": tokens, "maskable": np.full(count, length - 2, np.uint16)}
        entries[split], described = _rows(folder, split, rows)
    return _finish(folder, entries, {**described, "facts": facts})


def write_clips(folder: Path, examples: int, samples: int, letters: int) -> Path:
    """Write clips of noise of one length as sources of speech make them, with five letters each.

    Returns:
        The manifest.
    """
    folder.mkdir(parents=True)
    random = np.random.Generator(np.random.Philox(0))
    facts = {"letters": [chr(ord("A") + k) for k in range(letters)], "longest": samples}
    entries: dict[str, list[manifest.Entry]] = {}
    for split, count in (("train", examples), ("test", examples // 10)):
        audio = random.integers(-9000, 9000, count * samples).astype(np.int16)
        tokens = random.integers(0, letters, count * 5).astype(np.uint8)
        rows: dict[str, arrays.Stored] = {
            "audio": arrays.Ragged(values=audio, lengths=np.full(count, samples)),
            "tokens": arrays.Ragged(values=tokens, lengths=np.full(count, 5)),
            "samples": np.full(count, samples, np.int32),
            "needed": np.full(count, 5, np.int32),
        }
        entries[split], described = _rows(folder, split, rows)
    return _finish(folder, entries, {**described, "facts": {**facts, "longest_transcript": 5}})


def _rows(
    folder: Path, split: str, rows: Mapping[str, arrays.Stored]
) -> tuple[list[manifest.Entry], dict[str, Any]]:
    """Write a split's shard; returns what a manifest says of it, and of its arrays."""
    described = {name: arrays.of_values(name, values) for name, values in rows.items()}
    path = folder / f"{split}-00000.h5"
    content = shards.write(path, described, rows, {"split": split})
    count = len(next(iter(rows.values())))
    return [manifest.entry(path, count, content)], manifest.said(described)


def _finish(
    folder: Path, entries: Mapping[str, list[manifest.Entry]], told: Mapping[str, Any]
) -> Path:
    about = {"name": "benchmark", "source": "benchmark", "origin": "made up", "licence": "none"}
    made = manifest.make({**about, **told}, entries)
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


def gathering(reader: Reader, windows: Sequence[np.ndarray]) -> Functions:
    """Return what takes a split's rows, window by window: the reader, and `np.take` from RAM.

    Both let go of each window before the next one: memory that is new is slow.
    """
    stored = reader.take(np.arange(reader.examples))

    def with_reader() -> None:
        for rows in windows:
            reader.take(rows)

    def from_ram() -> None:
        for rows in windows:
            for values in stored.values():
                np.take(values, rows, axis=0)

    return {"reader": with_reader, "np.take": from_ram}
