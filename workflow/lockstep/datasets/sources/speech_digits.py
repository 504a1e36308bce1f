"""The Free Spoken Digit Dataset: ``{digit}_{speaker}_{index}.wav``, at any depth or in an archive.

Its transcripts are the ten words. By its own convention the recordings of index 0 to 4 of each
digit and speaker are for testing.
"""

import re
import tarfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockstep.datasets import options, speech, staged
from lockstep.datasets.speech import Clip
from lockstep.errors import UserError

if TYPE_CHECKING:
    import numpy as np

ORIGIN = "Free Spoken Digit Dataset (Z. Jackson and others), staged by a person"
LICENCE = "CC-BY-SA-4.0"
ARCHIVE = "recordings.tar.gz"
DEFAULTS: dict[str, Any] = {**speech.OPTIONS}
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NAME = re.compile(r"([0-9])_(.+)_([0-9]+)\.wav")
TESTED = 5  # the first recordings of each digit and speaker


def check(given: Mapping[str, Any]) -> None:
    """Check the options of a config's entry; see `lockstep.datasets.speech`."""
    speech.check(options.complete(given, DEFAULTS))


def read(raw: Path, given: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `(split, arrays)`; see `lockstep.datasets.speech.read`."""
    return speech.read(raw, options.complete(given, DEFAULTS), _clips)


def describe(raw: Path, given: Mapping[str, Any]) -> "tuple[dict[str, Any], dict[str, np.ndarray]]":
    """Return what workloads must know; see `lockstep.datasets.speech.describe`."""
    return speech.describe(raw, options.complete(given, DEFAULTS), _clips)


def _clips(raw: Path, settings: Mapping[str, Any]) -> dict[str, list[Clip]]:
    staged.check_folder(raw, f"recordings such as 7_jackson_12.wav, or {ARCHIVE}")
    archive = raw / ARCHIVE
    if archive.is_file():
        found = {f"{archive}/{name}": _content(content) for name, content in _members(archive)}
    else:
        found = {str(path): path.read_bytes for path in sorted(raw.rglob("*.wav"))}
    splits: dict[str, list[Clip]] = {"train": [], "test": []}
    for where in sorted(found, key=lambda where: (where.rpartition("/")[2], where)):
        name = where.rpartition("/")[2]
        parts = NAME.fullmatch(name)
        if parts is None:
            raise UserError(f"{where}: is not named as in 7_jackson_12.wav (digit, speaker, index)")
        split = "test" if int(parts[3]) < TESTED else "train"
        splits[split].append(Clip(name, where, WORDS[int(parts[1])], found[where]))
    for split, clips in splits.items():
        if not clips:
            raise UserError(f"{raw}: has no {split} recordings (index below {TESTED}: test)")
    return splits


def _content(content: bytes) -> Any:
    return partial(bytes, content)


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with tarfile.open(archive) as opened:
            for member in opened:
                stream = opened.extractfile(member) if member.name.endswith(".wav") else None
                if stream is not None:
                    yield member.name, stream.read()
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"{archive}: cannot be read ({error}); fetch it again") from error
