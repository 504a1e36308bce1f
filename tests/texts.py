"""A small text with words that follow one another, preprocessed for BERT; nothing is staged."""

import functools
from pathlib import Path

import numpy as np

from lockstep.datasets import keys, prepare

LETTERS = "abcdefghijklmnop"
WORDS, DOCUMENTS, SENTENCES = 200, 160, 8
TEXT = {"train": "corpus.txt", "vocabulary": 128, "length": 32}
SENTENCE = {"length": 32, "vocabulary": TEXT}


@functools.cache
def words() -> list[str]:
    """Made-up words of two to nine letters."""
    drawn = keys.words(WORDS * 10, "words").reshape(WORDS, 10) % np.uint64(len(LETTERS))
    return ["".join(LETTERS[k] for k in row[: 2 + row[-1] % 8]) for row in drawn.astype(int)]


def sentence(number: int) -> list[str]:
    """Four to eleven words, the frequent ones first in the list; each may announce the next one."""
    known, word = words(), 0
    found: list[str] = []
    drawn = keys.uniform(24, "sentence", number)
    for place in range(4 + number % 8):
        follows = drawn[2 * place] < 0.5
        word = (word * 7 + 3) % WORDS if follows else int(WORDS ** drawn[2 * place + 1]) - 1
        found.append(known[word])
    return found


def write(folder: Path) -> Path:
    """Write `corpus.txt`, and `train.tsv` and `dev.tsv` of sentences, labelled by their length."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = []
    for number in range(DOCUMENTS):
        lines = [" ".join(sentence(number * SENTENCES + k)) + "." for k in range(SENTENCES)]
        documents.append("\n".join(lines))
    (folder / "corpus.txt").write_text("\n\n".join(documents))
    for name, first, count in (("train", 0, 400), ("dev", 1000, 90)):
        rows = [(sentence(k), int(k % 8 > 3)) for k in range(first, first + count)]
        lines = ["sentence\tlabel", *(f"{' '.join(found)}\t{label}" for found, label in rows)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def prepared(folder: Path, source: str = "text") -> Path:
    """Preprocess them for source `text` or `glue`; returns the manifest."""
    raw = write(folder / "raw")
    options = {"text": TEXT, "glue": SENTENCE}[source]
    entry = {"source": source, "options": options}
    prepare.prepare(source, entry, "0" * 64, raw, folder / source)
    return folder / source / "manifest.json"
