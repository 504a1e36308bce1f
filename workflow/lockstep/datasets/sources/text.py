"""Plain text for pretraining: documents packed into rows of tokens of one length.

The tokens of all documents of a split, a [SEP] between them, are cut into rows, each
``[CLS] tokens [SEP]``: there is no padding. What does not fill a last row is left out.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.datasets import documents, options, staged, wordpiece
from lockstep.errors import UserError

ORIGIN = "texts staged by a person"
LICENCE = "unknown"
DEFAULTS: dict[str, Any] = {
    "train": "*",  # files in raw, names or patterns
    "test": None,  # likewise; if absent, some of the documents of train
    "test_every": 10,  # the first of each ten documents is for testing
    "format": "plain",  # or wikitext, jsonl (lockstep.datasets.documents)
    "vocabulary": 8192,  # so many pieces, trained on the training documents; or a file in raw
    "lower": True,  # lower case, without accents
    "length": 128,  # tokens of a row
}


def check(given: Mapping[str, Any]) -> None:
    """Check the options of a config's entry, as far as the texts need not be known.

    Raises:
        UserError: names the option, what is wrong with it and what would be right.
    """
    settings = options.complete(given, DEFAULTS)
    options.splits(settings)
    options.whole("test_every", settings["test_every"], 2, 1 << 30)
    options.one_of("format", settings["format"], documents.KINDS)
    options.one_of("lower", settings["lower"], (True, False))
    options.whole("length", settings["length"], 8, 1 << 15)
    if isinstance(settings["vocabulary"], str):
        options.patterns("vocabulary", settings["vocabulary"])
    else:
        options.whole("vocabulary", settings["vocabulary"], 32, wordpiece.LARGEST)


def read(raw: Path, given: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield `(split, arrays)`.

    Yields:
        `tokens`, uint16 ``(N, length)`` (uint32 for more than 65,536 pieces), and `maskable`,
        uint16 ``(N,)``: how many of a row's tokens are no special ones.

    Raises:
        UserError: by file and line, what is wrong with a text or the vocabulary.
    """
    settings = options.complete(given, DEFAULTS)
    pieces = vocabulary(raw, given)
    special = [pieces.index(piece) for piece in wordpiece.SPECIALS]
    for split in ("train", "test"):
        texts = _texts(raw, settings, split)
        ids = wordpiece.encoded(texts, pieces, settings["lower"])
        tokens = _packed(list(ids), settings["length"], pieces)
        if not len(tokens):
            raise UserError(
                f"{raw}: the {split} documents do not fill one row of {settings['length']} tokens; "
                "name more files, or choose a smaller options.length or options.test_every"
            )
        maskable = (~np.isin(tokens, special)).sum(axis=1).astype(np.uint16)
        yield split, {"tokens": tokens, "maskable": maskable}


def describe(raw: Path, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what workloads must know of the vocabulary, and its bytes, for the shards."""
    pieces = vocabulary(raw, given)
    lower = options.complete(given, DEFAULTS)["lower"]
    stored = np.frombuffer(wordpiece.content(pieces), np.uint8)
    return wordpiece.facts(pieces, lower), {"vocabulary": stored}


def vocabulary(raw: Path, given: Mapping[str, Any]) -> wordpiece.Vocabulary:
    """Return the vocabulary that a source of these options has: staged, or trained.

    Raises:
        UserError: see `read`.
    """
    return _vocabulary(raw, json.dumps(options.complete(given, DEFAULTS), sort_keys=True))


@functools.lru_cache(maxsize=4)
def _vocabulary(raw: Path, known: str) -> wordpiece.Vocabulary:
    settings = json.loads(known)
    staged.check_folder(raw, "texts")
    wanted = settings["vocabulary"]
    if isinstance(wanted, str):
        [path, *_] = options.files("vocabulary", raw, (wanted,))
        return wordpiece.read(path)
    return wordpiece.train(lambda: _texts(raw, settings, "train"), wanted, settings["lower"])


def _texts(raw: Path, settings: Mapping[str, Any], split: str) -> Iterator[str]:
    """Yield the documents of a split."""
    if settings["test"] is not None:
        for document in _documents(raw, settings, split):
            yield document
        return
    for number, document in enumerate(_documents(raw, settings, "train")):
        if (number % settings["test_every"] == 0) == (split == "test"):
            yield document


def _documents(raw: Path, settings: Mapping[str, Any], name: str) -> Iterator[str]:
    hidden = settings["vocabulary"]
    for path in options.files(name, raw, options.patterns(name, settings[name])):
        if path.name.startswith(".") or path.relative_to(raw).as_posix() == hidden:
            continue
        yield from documents.read(path, settings["format"])


def _packed(documents_: list[np.ndarray], length: int, pieces: wordpiece.Vocabulary) -> np.ndarray:
    """Return rows ``[CLS] … [SEP]`` of a split's tokens, ``(N, length)``."""
    kind = wordpiece.id_type(pieces)
    separator = np.array([pieces.index("[SEP]")], kind)
    stream = np.concatenate(
        [part for ids in documents_ if len(ids) for part in (ids, separator)] or [separator]
    )[:-1]
    inner = length - 2
    count = len(stream) // inner
    rows = np.empty((count, length), kind)
    rows[:, 0], rows[:, -1] = pieces.index("[CLS]"), separator[0]
    rows[:, 1:-1] = stream[: count * inner].reshape(count, inner)
    return rows
