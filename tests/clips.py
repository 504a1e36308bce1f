"""Made-up clips: a tone for each letter, in the layout of Common Voice; nothing is staged.

Clips have 4 to 9 frames. Some transcripts need more frames than their clip has.
"""

from pathlib import Path

import numpy as np
import soundfile

from lockstep.datasets import keys, prepare

RATE, LONGEST, LETTERS = 16000, 3200, " ABCDEFG"
TRAIN, TEST = 60, 35
OPTIONS = {"infeasible": 100}


def spoken(number: int) -> tuple[str, np.ndarray]:
    """A sentence of two to five letters, and its clip, int16."""
    drawn = keys.words(8, "clip", number)
    letters = [LETTERS[1 + int(word % np.uint64(7))] for word in drawn[: 2 + number % 4]]
    if number % 3 == 0:
        letters[1:1] = [" "]
    if number % 5 == 0:
        letters[-1:] = letters[-2:-1] * 2  # needs a blank
    samples = 1600 + int(drawn[6] % np.uint64(1601))
    place = np.arange(samples)
    pitch = np.array([LETTERS.index(letter) for letter in letters])[place * len(letters) // samples]
    noise = keys.normal(samples, "noise", number)
    wave = 6000 * np.sin(2 * np.pi * 300 * pitch * place / RATE) + 800 * noise + 50 * (number % 7)
    return "".join(letters), wave.astype(np.int16)


def write(folder: Path) -> Path:
    """Write `train.tsv`, `dev.tsv` and `clips`."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for name, first, count in (("train", 0, TRAIN), ("dev", TRAIN, TEST)):
        lines = ["client_id\tpath\tsentence"]
        for number in range(first, first + count):
            sentence, samples = spoken(number)
            soundfile.write(folder / "clips" / f"{number}.wav", samples, RATE)
            lines.append(f"x\t{number}.wav\t{sentence}")
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def prepared(folder: Path) -> Path:
    """Preprocess them; returns the manifest."""
    path = folder / "clips" / "manifest.json"
    if not path.is_file():
        entry = {"source": "common_voice", "options": OPTIONS}
        prepare.prepare("clips", entry, "0" * 64, write(folder / "raw"), folder / "clips")
    return path
