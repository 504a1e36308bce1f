"""From a sound file's bytes to int16 samples of one channel: the one decoder of all speech.

`soundfile` (libsndfile) decodes WAV, FLAC, OGG and MP3. It reads integers of float files without
scaling them, and truncated WAV files without a word; so samples are read as float64, in which every
integer of 24 bits is exact, and the size in a WAV's header is compared with the file's.
"""

import io

import numpy as np

from lockstep.datasets import resampling

FULL = 1 << 15
UNKNOWN = 0xFFFFFFFF  # bytes of a WAV that was written to a pipe
LOSSY = ("MPEG", "VORBIS", "OPUS", "MPEG_LAYER_III")
"""Formats of which two versions of a decoder may make different samples."""


class Unusable(Exception):
    """A clip that nothing can be learned from.

    Attributes:
        kind: in a few words, by which such clips are counted.
    """

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


def decode(content: bytes, rate: int) -> tuple[np.ndarray, list[str]]:
    """Return a clip's samples at a rate, int16 ``(n,)``, and what was done that is worth counting.

    Channels are averaged in integers (rounded down), more than 16 bits are rounded, another rate is
    resampled (`lockstep.datasets.resampling`).

    Raises:
        Unusable: says why.
    """
    import soundfile

    _check_size(content)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            kind, subtype, own_rate = file.format, file.subtype, file.samplerate
            values = file.read(dtype="float64", always_2d=True)
    # A damaged file can make the library say anything.
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        raise Unusable("undecodable", f"cannot be decoded ({str(error).strip()})") from error
    if not len(values):
        raise Unusable("empty", "holds no samples")
    largest = np.abs(values).max()
    if not largest <= 1:  # or not a number
        raise Unusable(
            "beyond full scale",
            f"has samples of up to {largest:g} times full scale; divide them by it",
        )
    integers = np.clip(np.rint(values * FULL), -FULL, FULL - 1).astype(np.int64)
    notes = _notes(kind, subtype, integers.shape[1], own_rate, rate)
    samples = (integers.sum(axis=1) // integers.shape[1]).astype(np.int16)
    if own_rate != rate:
        samples = resampling.resampled(samples, own_rate, rate)
    if not samples.any():
        raise Unusable("silent", "is silent: all its samples are 0")
    return samples, notes


def _notes(kind: str, subtype: str, channels: int, own_rate: int, rate: int) -> list[str]:
    notes = [] if subtype == "PCM_16" else [f"{kind} {subtype}"]
    if subtype in LOSSY or kind == "MP3":
        notes.append("lossy")
    if channels > 1:
        notes.append(f"{channels} channels")
    if own_rate != rate:
        notes.append(f"{own_rate} Hz")
    return notes


def _check_size(content: bytes) -> None:
    """Refuse a WAV file that has less than its header says: the library reads what is there."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return
    place = 12
    while place + 8 <= len(content):
        size = int.from_bytes(content[place + 4 : place + 8], "little")
        if content[place : place + 4] == b"data":
            there = len(content) - place - 8
            if size != UNKNOWN and size > there:
                raise Unusable(
                    "truncated",
                    f"is truncated: its header says {size} bytes of samples, {there} are there",
                )
            if not size and there:
                raise Unusable("truncated", "has an unfinished header, which says 0 bytes")
            return
        place += 8 + size + size % 2


def versions() -> dict[str, str]:
    """Return the versions that the samples depend on."""
    import soundfile

    return {
        "soundfile": soundfile.__version__,
        "libsndfile": soundfile.__libsndfile_version__,
    }
