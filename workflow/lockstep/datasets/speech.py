"""Clips of speech with their transcripts, as every source of them makes arrays.

A *letter* is a character of a transcript after Unicode's NFC, a change of case and single spaces
between words; letter 0 is always the space, so that words can be told apart. A transcript that
needs more frames than its clip has (`lockstep.datasets.framing`) cannot be aligned with it.

What a clip must be for something to be learned from it is checked once, here. A clip that is not is
refused, or left out and counted, as the option `broken` says.
"""

import functools
import json
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from lockstep.datasets import framing, options
from lockstep.errors import UserError

if TYPE_CHECKING:  # options are checked where there is no NumPy
    import numpy as np

OPTIONS: dict[str, Any] = {
    "rate": 16000,  # samples a second; other rates are resampled
    "longest": None,  # samples of a clip; longer ones are left out and counted
    "letters": None,  # of transcripts, one text; those of the training clips if absent
    "case": "upper",  # or lower, or keep
    "broken": "refuse",  # or skip: leave clips out that cannot be used, and count them
    "infeasible": 1,  # percent of a split's clips whose transcript may need too many frames
}
"""What all sources of speech understand."""
SPLITS = ("train", "test")


class Clip(NamedTuple):
    """A clip that a source has found."""

    name: str
    """Unique over both splits."""
    where: str
    """The file, and the line if there is one, for messages."""
    text: str
    read: Callable[[], bytes]


Listing = Callable[[Path, Mapping[str, Any]], Mapping[str, Sequence[Clip]]]
"""From the raw folder and complete options to the clips of both splits."""


@dataclass(kw_only=True)
class Split:
    """The usable clips of a split, and what became of the others."""

    audio: list["np.ndarray"] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)


def check(settings: Mapping[str, Any]) -> None:
    """Check what all sources of speech understand.

    Raises:
        UserError: names the option, what is wrong with it and what would be right.
    """
    options.whole("rate", settings["rate"], 4000, 192_000)
    if settings["longest"] is not None:
        options.whole("longest", settings["longest"], framing.FRAME, 1 << 26)
    if settings["letters"] is not None:
        options.text("letters", settings["letters"])
    options.one_of("case", settings["case"], ("upper", "lower", "keep"))
    options.one_of("broken", settings["broken"], ("refuse", "skip"))
    options.whole("infeasible", settings["infeasible"], 0, 100)


def read(
    raw: Path, settings: Mapping[str, Any], listing: Listing
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield `(split, arrays)`.

    Yields:
        `audio`, ragged int16 ``(samples,)``; `tokens`, ragged uint8 ``(letters,)`` (uint16 of more
        than 256); `samples` and `needed`, int32: the frames that the transcript needs.

    Raises:
        UserError: by file and line, what is wrong with a clip or a transcript.
    """
    _corpus.cache_clear()
    yield from _corpus(raw, json.dumps(settings, sort_keys=True), listing)[0].items()


def describe(
    raw: Path, settings: Mapping[str, Any], listing: Listing
) -> tuple[dict[str, Any], dict[str, "np.ndarray"]]:
    """Return what workloads must know, and what became of every clip."""
    return _corpus(raw, json.dumps(settings, sort_keys=True), listing)[1], {}


@functools.lru_cache(maxsize=1)
def _corpus(raw: Path, known: str, listing: Listing) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arrays of both splits, and the facts: these are of both, too."""
    from lockstep.datasets import waveform

    settings = json.loads(known)
    clips = listing(raw, settings)
    _check_names(clips)
    case = settings["case"]
    texts = {split: [spelled(clip.text, case) for clip in clips[split]] for split in SPLITS}
    letters = _letters(settings, texts["train"])
    splits = {split: _split(clips[split], texts[split], letters, settings) for split in SPLITS}
    _check_usable(raw, splits)
    arrays = {split: _arrays(found, letters) for split, found in splits.items()}
    infeasible = {}
    for split, made in arrays.items():
        few = ~framing.feasible(made["samples"], made["needed"])
        infeasible[split] = int(few.sum())
        if 100 * infeasible[split] > settings["infeasible"] * len(few):
            raise UserError(
                f"{raw}: the transcripts of {infeasible[split]} of {len(few)} {split} clips need "
                f"more frames than the clips have; are they those of these clips? "
                f"(options.infeasible: {settings['infeasible']})"
            )
    notes = sum((found.notes for found in splits.values()), Counter[str]())
    return arrays, {
        "rate": settings["rate"],
        "letters": letters,
        "longest": max(int(made["samples"].max()) for made in arrays.values()),
        "longest_transcript": max(int(made["tokens"].lengths.max()) for made in arrays.values()),
        "durations": framing.durations([made["samples"] for made in arrays.values()]),
        "infeasible": infeasible,
        "left_out": {
            split: dict(sorted(found.left_out.items())) for split, found in splits.items()
        },
        "converted": {split: dict(sorted(own.notes.items())) for split, own in splits.items()},
        "resampling": _resampling(notes, settings["rate"]),
        "same_on_every_machine": not notes["lossy"],
        "tools": waveform.versions(),
    }


def spelled(text: str, case: str) -> str:
    """Return a transcript's letters, single spaces between words."""
    words = " ".join(unicodedata.normalize("NFC", text).split())
    return {"upper": words.upper, "lower": words.lower, "keep": words.strip}[case]()


def _letters(settings: Mapping[str, Any], texts: Sequence[str]) -> list[str]:
    chosen = settings["letters"]
    there = set("".join(texts)) if chosen is None else set(spelled(f"a{chosen}", "keep")[1:])
    return [" ", *sorted(there - {" "})]


def _check_names(clips: Mapping[str, Sequence[Clip]]) -> None:
    known: dict[str, str] = {}
    for clip in (clip for split in SPLITS for clip in clips[split]):
        if clip.name in known:
            raise UserError(
                f"{clip.where}: the clip {clip.name} is there twice, first in {known[clip.name]}; "
                "remove one of them"
            )
        known[clip.name] = clip.where


def _split(
    clips: Sequence[Clip], texts: Sequence[str], letters: Sequence[str], settings: Mapping[str, Any]
) -> Split:
    from lockstep.datasets.waveform import Unusable

    known, found = set(letters), Split()

    def usable(clip: Clip, text: str) -> Any:
        try:
            return _usable(clip, text, known, settings)
        except Unusable as error:
            return error

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for clip, text, made in zip(clips, texts, pool.map(usable, clips, texts)):
            if isinstance(made, Unusable):
                found.left_out[made.kind] += 1
                if settings["broken"] == "refuse":
                    found.refused.append(f"{clip.where}: {made}")
                continue
            samples, notes = made
            if settings["longest"] is not None and len(samples) > settings["longest"]:
                found.left_out["longer than options.longest"] += 1
                continue
            found.notes.update(notes)
            found.audio.append(samples)
            found.texts.append(text)
    return found


def _usable(
    clip: Clip, text: str, known: set[str], settings: Mapping[str, Any]
) -> tuple["np.ndarray", list[str]]:
    """Return a clip's samples and notes of them; raises Unusable."""
    from lockstep.datasets import waveform

    if not text:
        raise waveform.Unusable("empty transcript", "has an empty transcript")
    unknown = sorted(set(text) - known)
    if unknown:
        raise waveform.Unusable(
            "unknown letter",
            f"its transcript has the letter {unknown[0]!r}, which is not among those of "
            "options.letters, or of the training clips",
        )
    samples, notes = waveform.decode(clip.read(), settings["rate"])
    if len(samples) < framing.FRAME:
        raise waveform.Unusable(
            "shorter than a frame", f"has {len(samples)} samples; a frame needs {framing.FRAME}"
        )
    return samples, notes


def _check_usable(raw: Path, splits: Mapping[str, Split]) -> None:
    refused = [each for found in splits.values() for each in found.refused]
    if refused:
        others = f", and so {len(refused) - 1} others" if len(refused) > 1 else ""
        raise UserError(f"{refused[0]}{others}; options.broken: skip leaves such clips out")
    for split, found in splits.items():
        if not found.audio:
            left = ", ".join(f"{count} {kind}" for kind, count in sorted(found.left_out.items()))
            raise UserError(f"{raw}: {split} holds no clip that can be used ({left or 'no clips'})")


def _arrays(found: Split, letters: Sequence[str]) -> dict[str, Any]:
    import numpy as np

    from lockstep.datasets.arrays import Ragged

    number = {letter: k for k, letter in enumerate(letters)}
    kind = np.min_scalar_type(max(len(letters) - 1, 1))
    tokens = [np.array([number[letter] for letter in text], kind) for text in found.texts]
    samples, lengths = (np.array([len(a) for a in each]) for each in (found.audio, tokens))
    return {
        "audio": Ragged(values=np.concatenate(found.audio), lengths=samples),
        "tokens": Ragged(values=np.concatenate(tokens), lengths=lengths),
        "samples": samples.astype(np.int32),
        "needed": np.array([framing.needed(text) for text in found.texts], np.int32),
    }


def _resampling(notes: Mapping[str, int], rate: int) -> dict[str, str]:
    """Return the hash of the taps by which each rate was resampled."""
    from lockstep.datasets import resampling

    rates = sorted(int(note[:-3]) for note in notes if note.endswith(" Hz"))
    return {str(own): resampling.digest(own, rate) for own in rates}
