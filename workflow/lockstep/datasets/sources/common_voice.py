"""Common Voice: a table of clips and sentences, separated by tabs, and a folder of MP3 files.

The table has no quoting: a quotation mark is a letter. Decoders of MP3 may differ in a sample's
last bit, and so a dataset of them need not have the same bytes on another machine; the manifest
says it (`same_on_every_machine`).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockstep.datasets import documents, options, speech, staged
from lockstep.datasets.speech import Clip
from lockstep.errors import UserError, nearest

if TYPE_CHECKING:
    import numpy as np

ORIGIN = "Common Voice, or a corpus in its layout, staged by a person"
LICENCE = "unknown"
DEFAULTS: dict[str, Any] = {
    **speech.OPTIONS,
    "train": "train.tsv",  # file in raw
    "test": "dev.tsv",
    "clips": "clips",  # folder in raw
}
COLUMNS = ("path", "sentence")


def check(given: Mapping[str, Any]) -> None:
    """Check the options of a config's entry.

    Raises:
        UserError: names the option, what is wrong with it and what would be right.
    """
    settings = options.complete(given, DEFAULTS)
    speech.check(settings)
    for name in ("train", "test", "clips"):
        options.patterns(name, settings[name])


def read(raw: Path, given: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `(split, arrays)`; see `lockstep.datasets.speech.read`."""
    return speech.read(raw, options.complete(given, DEFAULTS), _clips)


def describe(raw: Path, given: Mapping[str, Any]) -> "tuple[dict[str, Any], dict[str, np.ndarray]]":
    """Return what workloads must know; see `lockstep.datasets.speech.describe`."""
    return speech.describe(raw, options.complete(given, DEFAULTS), _clips)


def _clips(raw: Path, settings: Mapping[str, Any]) -> dict[str, list[Clip]]:
    staged.check_folder(raw, f"{settings['train']}, {settings['test']} and {settings['clips']}")
    [folder] = options.patterns("clips", settings["clips"])
    staged.check_folder(raw / folder, "the clips (options.clips)")
    there = {path.name: path for path in sorted((raw / folder).iterdir())}
    return {
        split: [
            clip
            for path in options.files(split, raw, options.patterns(split, settings[split]))
            for clip in _listed(path, raw / folder, there)
        ]
        for split in speech.SPLITS
    }


def _listed(path: Path, folder: Path, there: Mapping[str, Path]) -> Iterator[Clip]:
    places: list[int] = []
    for number, line in documents.lines(path):
        fields, where = line.split("\t"), f"{path}, line {number}"
        if not places:
            for column in COLUMNS:
                if column not in fields:
                    raise UserError(f"{where}: has no column {column!r}; {nearest(column, fields)}")
            places = [fields.index(column) for column in COLUMNS]
            continue
        if len(fields) <= max(places):
            raise UserError(f"{where}: has {len(fields)} columns, the first line more")
        name, sentence = (fields[place] for place in places)
        if name not in there:
            raise UserError(f"{where}: the clip {folder / name} is not there")
        yield Clip(name, where, sentence, there[name].read_bytes)
    if not places:
        raise UserError(f"{path}: is empty; its first line should name the columns")
