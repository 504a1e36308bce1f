"""Display advertising in Criteo's format: the Kaggle challenge's `train.txt`, or days of 1TB.

A dense number x becomes log(max(x, 0) + 1), one that is missing 0: in float32, once, by NumPy. A
category becomes a row of its table: 0 if it is missing; `hashed` puts it into one of the others
(several may share one), `dictionary` gives each value a row of its own from row 2 on, the frequent
ones first, and row 1 to those that are rarer than `threshold`, have no room, or do not occur in the
training file. The split is by time, which is the order of lines: the last part is for testing.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.datasets import clicks, options, staged
from lockstep.errors import UserError

ORIGIN = "clicks staged by a person"
LICENCE = "unknown"
DEFAULTS: dict[str, Any] = {
    "train": "train.txt",  # files in raw, names or patterns, in the order of time
    "test": None,  # likewise; if absent, the last lines of train
    "test_part": 7,  # the last one of so many parts of train
    "encoding": "hashed",  # or dictionary
    "rows": 100_000,  # of each table at most, or a list of 26
    "shared": False,  # one table for all categories (hashed)
    "threshold": 1,  # occurrences that give a value its own row (dictionary)
}
EMPTY, RARE = 0, 1
STEP = 0x9E3779B9  # between what categories add to a value in a shared table: 2^32 / golden ratio


def check(given: Mapping[str, Any]) -> None:
    """Check the options of a config's entry.

    Raises:
        UserError: names the option, what is wrong with it and what would be right.
    """
    settings = options.complete(given, DEFAULTS)
    options.splits(settings)
    options.whole("test_part", settings["test_part"], 2, 1 << 20)
    options.one_of("encoding", settings["encoding"], ("hashed", "dictionary"))
    options.one_of("shared", settings["shared"], (True, False))
    options.whole("threshold", settings["threshold"], 1, 1 << 30)
    rows = settings["rows"]
    if isinstance(rows, list) and (len(rows) != clicks.CATEGORIES or settings["shared"]):
        raise UserError(
            f"options.rows has {len(rows)} numbers; it must be one, or, unless shared is true, "
            f"{clicks.CATEGORIES}"
        )
    for number in rows if isinstance(rows, list) else [rows]:
        options.whole("rows", number, 3, (1 << 31) - 2)
    if settings["shared"] and settings["encoding"] == "dictionary":
        raise UserError("options.shared is true, which needs options.encoding: hashed")


def read(raw: Path, given: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield `(split, arrays)`.

    Yields:
        `dense`, float32 ``(N, 13)``; `ids`, int32 ``(N, 26)``; `click`, uint8 ``(N,)``.

    Raises:
        UserError: by file and line, what is wrong with a file; or a split has clicks alone or none.
    """
    settings = options.complete(given, DEFAULTS)
    staged.check_folder(raw, str(settings["train"]))
    encode = _encoder(raw, json.dumps(settings, sort_keys=True))
    train = _arrays(raw, settings, "train", encode)
    if settings["test"] is None:
        count = len(train["click"])
        first = count - count // settings["test_part"]
        splits = {
            "train": {name: array[:first] for name, array in train.items()},
            "test": {name: array[first:] for name, array in train.items()},
        }
    else:
        splits = {"train": train, "test": _arrays(raw, settings, "test", encode)}
    for split, arrays in splits.items():
        check_split(raw, split, arrays["click"])
        yield split, arrays


def describe(raw: Path, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what workloads must know: rows of each table, or of the one that all share."""
    settings = options.complete(given, DEFAULTS)
    return {"rows": _encoder(raw, json.dumps(settings, sort_keys=True)).rows}, {}


def check_split(raw: Path, split: str, click: np.ndarray) -> None:
    """Raise UserError unless a split has clicks and others."""
    if not len(click):
        raise UserError(f"{raw}: nothing is left for {split}; stage more lines, or choose another "
                        "split by the options")  # fmt: skip
    if click.min() == click.max():
        raise UserError(f"{raw}: all {len(click)} labels of {split} are {click[0]}; nothing can be "
                        "learned or measured")  # fmt: skip


class _Encoder:
    """From values of categories to rows.

    Attributes:
        rows: of each table.
    """

    def __init__(self, rows: list[int], known: list[tuple[np.ndarray, np.ndarray]] | None) -> None:
        """Take tables' rows and, for a dictionary, each category's values, sorted, with rows."""
        self.rows, self._known = rows, known

    def __call__(self, categories: np.ndarray) -> np.ndarray:
        """Return rows, int32, of categories, int64 ``(N, 26)``."""
        missing = categories == clicks.MISSING
        if self._known is None:
            # Each table has another `rows`, or all have one and add something of their own.
            added = np.arange(categories.shape[1]) * (STEP if len(self.rows) == 1 else 0)
            ids = 1 + ((categories + added) & 0xFFFFFFFF) % (np.array(self.rows) - 1)
        else:
            ids = np.full_like(categories, RARE)
            for column, (values, rows) in enumerate(self._known):
                if len(values):
                    wanted = categories[:, column]
                    place = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
                    ids[:, column] = np.where(values[place] == wanted, rows[place], RARE)
        return np.where(missing, EMPTY, ids).astype(np.int32)


@functools.lru_cache(maxsize=2)
def _encoder(raw: Path, known: str) -> _Encoder:
    settings = json.loads(known)
    rows = settings["rows"]
    most = rows if isinstance(rows, list) else [rows] * (1 if settings["shared"] else 26)
    if settings["encoding"] == "hashed":
        return _Encoder(most, None)
    counted = [(np.empty(0, np.int64), np.empty(0, np.int64))] * clicks.CATEGORIES
    for path in options.files("train", raw, options.patterns("train", settings["train"])):
        for block in clicks.read(path):
            for column, so_far in enumerate(counted):
                counted[column] = _counted(so_far, block.categories[:, column])
    kept = []
    for (values, counts), room in zip(counted, most):
        wanted = (counts >= settings["threshold"]) & (values != clicks.MISSING)
        values, counts = values[wanted], counts[wanted]
        values = values[np.lexsort((values, -counts))][: room - 2]
        order = np.argsort(values)
        kept.append((values[order], order + 2))
    return _Encoder([len(values) + 2 for values, _ in kept], kept)


def _counted(
    so_far: tuple[np.ndarray, np.ndarray], more: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return distinct values and how often they occur, with more of them counted."""
    values, counts = np.unique(more, return_counts=True)
    every, place = np.unique(np.concatenate([so_far[0], values]), return_inverse=True)
    total = np.zeros(len(every), np.int64)
    np.add.at(total, place, np.concatenate([so_far[1], counts]))
    return every, total


def _arrays(
    raw: Path, settings: Mapping[str, Any], split: str, encode: _Encoder
) -> dict[str, np.ndarray]:
    """Return the arrays of the files of a split."""
    found: dict[str, list[np.ndarray]] = {"dense": [], "ids": [], "click": []}
    for path in options.files(split, raw, options.patterns(split, settings[split])):
        for block in clicks.read(path):
            found["dense"].append(np.log1p(np.maximum(block.numbers, 0.0)).astype(np.float32))
            found["ids"].append(encode(block.categories))
            found["click"].append(block.click)
    return {name: np.concatenate(parts) for name, parts in found.items()}
