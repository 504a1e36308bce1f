"""Sentences or pairs of them with a label, in tab-separated files as GLUE publishes them.

Such files have no quoting: a quotation mark is a letter, and a field holds neither tabs nor line
ends. Some have no header, some begin with a byte order mark; "NA" and "null" are words. A row is
``[CLS] first [SEP]`` or ``[CLS] first [SEP] second [SEP]``, padded with [PAD]; what is too long
is cut, the longer sentence of a pair first.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.datasets import documents, options, staged, wordpiece
from lockstep.datasets.sources import text
from lockstep.errors import UserError, nearest

ORIGIN = "sentences staged by a person"
LICENCE = "unknown"
DEFAULTS: dict[str, Any] = {
    "train": "train.tsv",  # file in raw
    "test": "dev.tsv",  # GLUE's own test files have no labels
    "header": True,  # whether the first line names the columns
    "columns": ["sentence"],  # of the sentence, or of both; names, or numbers from 0
    "label": "label",  # column of the label
    "labels": ["0", "1"],  # what is in that column, in the order of the classes
    "vocabulary": "vocab.txt",  # a file in raw; or options of source text, whose vocabulary it is
    "lower": True,  # lower case, without accents
    "length": 128,  # tokens of a row
}


def check(given: Mapping[str, Any]) -> None:
    """Check the options of a config's entry, as far as the files need not be known.

    Raises:
        UserError: names the option, what is wrong with it and what would be right.
    """
    settings = options.complete(given, DEFAULTS)
    for name in ("train", "test"):
        options.patterns(name, settings[name])
    options.one_of("header", settings["header"], (True, False))
    options.one_of("lower", settings["lower"], (True, False))
    options.whole("length", settings["length"], 8, 1 << 15)
    columns, labels = settings["columns"], settings["labels"]
    if not isinstance(columns, list) or len(columns) not in (1, 2):
        raise UserError(f"options.columns is {columns!r}; it must be a list of one column or two")
    for name, column in (
        *(("columns", column) for column in columns),
        ("label", settings["label"]),
    ):
        if settings["header"]:
            options.text(name, column)
        else:
            options.whole(name, column, 0, 1 << 10)
    if not isinstance(labels, list) or len({*map(str, labels)}) != len(labels) or len(labels) < 2:
        raise UserError(f"options.labels is {labels!r}; it must be a list of two labels or more")
    for label in labels:
        options.text("labels", label)
    if isinstance(settings["vocabulary"], Mapping):
        text.check(settings["vocabulary"])
    else:
        options.patterns("vocabulary", settings["vocabulary"])


def read(raw: Path, given: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield `(split, arrays)`.

    Yields:
        `tokens`, uint16 ``(N, length)`` (uint32 for more than 65,536 pieces), padded with [PAD];
        `first` and `second`, uint16 ``(N,)``: tokens of both parts, their special ones included,
        so that the second is empty where there is one sentence; `label`, int32 ``(N,)``.

    Raises:
        UserError: by file and line, what is wrong with a row or the vocabulary.
    """
    settings = options.complete(given, DEFAULTS)
    staged.check_folder(raw, f"{settings['train']} and {settings['test']}")
    pieces = vocabulary(raw, given)
    for split in ("train", "test"):
        [path, *_] = options.files(split, raw, options.patterns(split, settings[split]))
        rows = list(_rows(path, settings))
        if not rows:
            raise UserError(f"{path}: holds no rows")
        sentences = [sentence for sentences, _ in rows for sentence in sentences]
        ids = list(wordpiece.encoded(sentences, pieces, settings["lower"]))
        several = len(settings["columns"])
        parts = [ids[k : k + several] for k in range(0, len(ids), several)]
        arrays = _padded(parts, settings["length"], pieces)
        yield split, {**arrays, "label": np.array([label for _, label in rows], np.int32)}


def describe(raw: Path, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what workloads must know of vocabulary and labels, and the vocabulary's bytes."""
    settings = options.complete(given, DEFAULTS)
    pieces = vocabulary(raw, given)
    facts = {
        **wordpiece.facts(pieces, settings["lower"]),
        "labels": list(settings["labels"]),
        "sentences": len(settings["columns"]),
    }
    return facts, {"vocabulary": np.frombuffer(wordpiece.content(pieces), np.uint8)}


def vocabulary(raw: Path, given: Mapping[str, Any]) -> wordpiece.Vocabulary:
    """Return the vocabulary: a staged one, or that of texts in the same folder."""
    wanted = options.complete(given, DEFAULTS)["vocabulary"]
    if isinstance(wanted, Mapping):
        return text.vocabulary(raw, wanted)
    [path, *_] = options.files("vocabulary", raw, options.patterns("vocabulary", wanted))
    return wordpiece.read(path)


def _rows(path: Path, settings: Mapping[str, Any]) -> Iterator[tuple[list[str], int]]:
    """Yield the sentences of each row and the number of its label."""
    wanted = [*settings["columns"], settings["label"]]
    labels = {label: number for number, label in enumerate(settings["labels"])}
    places = None if settings["header"] else wanted
    for number, line in documents.lines(path):
        fields = line.split("\t")
        if places is None:
            places = [_column(path, fields, name) for name in wanted]
            continue
        if len(fields) <= max(places):
            raise UserError(
                f"{path}, line {number}: has {len(fields)} columns, but column {max(places) + 1} "
                "is needed; columns are separated by tabs"
            )
        *sentences, label = (fields[place] for place in places)
        if label not in labels:
            raise UserError(
                f"{path}, line {number}: the label is {label!r}; {nearest(label, labels)} "
                "(options.labels)"
            )
        yield sentences, labels[label]


def _column(path: Path, header: list[str], name: str) -> int:
    if name not in header:
        raise UserError(
            f"{path}, line 1: no column is named {name!r}; {nearest(name, header)}; a file without "
            "a header needs the options header: false and columns by number"
        )
    return header.index(name)


def _padded(
    rows: list[list[np.ndarray]], length: int, pieces: wordpiece.Vocabulary
) -> dict[str, np.ndarray]:
    begin, end, pad = (pieces.index(piece) for piece in ("[CLS]", "[SEP]", "[PAD]"))
    tokens = np.full((len(rows), length), pad, wordpiece.id_type(pieces))
    sizes = np.zeros((len(rows), 2), np.uint16)
    for row, parts in enumerate(rows):
        kept = _cut([len(part) for part in parts], length - 1 - len(parts))
        place = 1
        tokens[row, 0] = begin
        for number, (part, count) in enumerate(zip(parts, kept)):
            tokens[row, place : place + count] = part[:count]
            tokens[row, place + count] = end
            place += count + 1
            sizes[row, number] = count + 1
        sizes[row, 0] += 1  # [CLS]
    return {"tokens": tokens, "first": sizes[:, 0].copy(), "second": sizes[:, 1].copy()}


def _cut(sizes: list[int], room: int) -> list[int]:
    """Return how many tokens of each part are kept: the longest loses its last one, repeatedly."""
    excess = sum(sizes) - room
    if excess <= 0:
        return sizes
    if len(sizes) == 1:
        return [room]
    first, second = sizes
    # Both end at half of the room, or the shorter one stays as it is.
    shorter = min(first, second)
    if shorter <= room // 2:
        return [first, room - first] if first <= second else [room - second, second]
    return [room - room // 2, room // 2]
