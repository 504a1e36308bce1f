"""LibriSpeech's folders: ``SPLIT/SPEAKER/CHAPTER/S-C-NNNN.flac``, and one ``S-C.trans.txt`` each.

A line of a transcript's file is a clip's name, a space and its words. Every line needs its clip and
every clip its line.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockstep.datasets import documents, options, speech, staged
from lockstep.datasets.speech import Clip
from lockstep.errors import UserError

if TYPE_CHECKING:
    import numpy as np

ORIGIN = "LibriSpeech (V. Panayotov and others), or a corpus in its folders, staged by a person"
LICENCE = "CC-BY-4.0"
DEFAULTS: dict[str, Any] = {
    **speech.OPTIONS,
    "train": "train-clean-100",  # folder in raw, or a list of them
    "test": "dev-clean",
}
SUFFIX = ".trans.txt"


def check(given: Mapping[str, Any]) -> None:
    """Check the options of a config's entry.

    Raises:
        UserError: names the option, what is wrong with it and what would be right.
    """
    settings = options.complete(given, DEFAULTS)
    speech.check(settings)
    options.splits(settings)


def read(raw: Path, given: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `(split, arrays)`; see `lockstep.datasets.speech.read`."""
    return speech.read(raw, options.complete(given, DEFAULTS), _clips)


def describe(raw: Path, given: Mapping[str, Any]) -> "tuple[dict[str, Any], dict[str, np.ndarray]]":
    """Return what workloads must know; see `lockstep.datasets.speech.describe`."""
    return speech.describe(raw, options.complete(given, DEFAULTS), _clips)


def _clips(raw: Path, settings: Mapping[str, Any]) -> dict[str, list[Clip]]:
    splits: dict[str, list[Clip]] = {}
    for split in speech.SPLITS:
        splits[split] = []
        for folder in options.patterns(split, settings[split]):
            staged.check_folder(raw / folder, f"speakers' folders (options.{split})")
            lists = sorted((raw / folder).rglob(f"*{SUFFIX}"))
            if not lists:
                raise UserError(f"{raw / folder}: has no file that ends with {SUFFIX}")
            for path in lists:
                splits[split] += _chapter(path)
    return splits


def _chapter(path: Path) -> Iterator[Clip]:
    """Yield the clips of a chapter."""
    there = {clip.stem: clip for clip in sorted(path.parent.glob("*.flac"))}
    for number, line in documents.lines(path):
        if not line.strip():
            continue
        name, _, text = line.partition(" ")
        where = f"{path}, line {number}"
        if name not in there:
            raise UserError(f"{where}: the clip {path.parent / name}.flac is not there")
        yield Clip(name, where, text, there.pop(name).read_bytes)
    prefix = path.name.removesuffix(SUFFIX)
    left = sorted(name for name in there if name.startswith(f"{prefix}-"))
    if left:
        raise UserError(f"{path}: has no line for the clip {left[0]}.flac")
