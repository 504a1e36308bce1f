"""A click log of a planted model, so that the best possible AUC is known; nothing is downloaded.

It is written in Criteo's format and read by the same parser. A category's value is frequent or rare
(the k-th has a share of 1 / k), a few fields are missing. The logit of a click is a sum of effects
of some categories' values, of pairs of values and of some numbers; what it is of the test lines is
the best that a model can say, and its AUC is a fact of the dataset (`best_auc`).
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import auc
from lockstep.datasets import clicks, keys, options
from lockstep.datasets.sources import criteo

ORIGIN = "made up: clicks of a planted model"
LICENCE = "CC0-1.0"
DEFAULTS: dict[str, Any] = {
    "examples": 240_000,  # of which the last part is for testing
    "test_part": 6,
    "values": 40,  # of a category at most
    "rows": 1000,  # of each table
    "encoding": "dictionary",
}
EFFECTS, PAIRS, NUMBERS = 8, 4, 4  # categories with an effect, pairs of them, numbers
PAIR, NUMBER = 0.3, 0.15  # of the logit: what a pair adds or takes, and a number's logarithm
MISSING = 20  # one field of so many is empty
BASE = -1.0  # logit without any effect: a quarter clicks


def check(given: Mapping[str, Any]) -> None:
    """Check the options of a config's entry.

    Raises:
        UserError: names the option, what is wrong with it and what would be right.
    """
    settings = options.complete(given, DEFAULTS)
    options.whole("examples", settings["examples"], 100, 1 << 26)
    options.whole("values", settings["values"], 2, 1 << 20)
    criteo.check(_for_criteo(settings))


def read(raw: Path, given: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield `(split, arrays)` as source `criteo` does; nothing is read from `raw`."""
    settings = options.complete(given, DEFAULTS)
    with tempfile.TemporaryDirectory(prefix="lockstep-") as folder:
        write(Path(folder) / "train.txt", settings)
        yield from criteo.read(Path(folder), _for_criteo(settings))


def describe(raw: Path, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the rows of each table, and the AUC of the planted model on the test lines."""
    settings = options.complete(given, DEFAULTS)
    log = planted(settings["examples"], settings["values"])
    tested = len(log.click) // settings["test_part"]
    best = auc.area(log.logit[-tested:], log.click[-tested:])
    return {"rows": [settings["rows"]] * clicks.CATEGORIES, "best_auc": round(best, 6)}, {}


def _for_criteo(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in ("test_part", "rows", "encoding")}


@dataclass(frozen=True, kw_only=True)
class Log:
    """A click log.

    Attributes:
        numbers: int64 ``(N, 13)``.
        values: of categories, from 0, int64 ``(N, 26)``.
        empty: which of the 39 fields are missing, ``(N, 39)``.
        logit: of the planted model, float64 ``(N,)``.
        click: 0 or 1, int64 ``(N,)``.
    """

    numbers: np.ndarray
    values: np.ndarray
    empty: np.ndarray
    logit: np.ndarray
    click: np.ndarray


def planted(count: int, values: int) -> Log:
    """Return a click log of so many lines, with so many values of each category."""
    edges = np.cumsum(1 / np.arange(1, values + 1))
    numbers = np.stack([_number(count, k) for k in range(clicks.NUMBERS)], axis=1)
    drawn = [
        np.searchsorted(edges, edges[-1] * keys.uniform(count, "value", k), side="right")
        for k in range(clicks.CATEGORIES)
    ]
    fields = clicks.NUMBERS + clicks.CATEGORIES
    empty = keys.words(count * fields, "empty").reshape(count, fields) % np.uint64(MISSING) == 0
    chosen = np.minimum(np.stack(drawn, axis=1), values - 1)
    logit = _logit(numbers, chosen, ~empty, values)
    click = keys.uniform(count, "click") < 1 / (1 + np.exp(-logit))
    return Log(
        numbers=numbers, values=chosen, empty=empty, logit=logit, click=click.astype(np.int64)
    )


def _number(count: int, column: int) -> np.ndarray:
    """Return numbers of one to eleven bits, all as frequent; some are -2."""
    words = keys.words(count, "number", column)
    size = 1 << (words % np.uint64(11)).astype(np.int64)
    values = size + (words >> np.uint64(8)).astype(np.int64) % size
    return np.where(words >> np.uint64(58) == 0, -2, values)


def _logit(numbers: np.ndarray, chosen: np.ndarray, present: np.ndarray, values: int) -> np.ndarray:
    """Return the planted model's logits, float64 ``(N,)``; what is missing has no effect."""
    known = present[:, clicks.NUMBERS :]
    logit = np.full(len(numbers), BASE)
    for k in range(EFFECTS):
        effects = 2 * keys.uniform(values, "effect", k) - 1
        logit += effects[chosen[:, k]] * known[:, k]
    for k in range(PAIRS):
        sides = np.ones(len(numbers))
        for column in (2 * k, 2 * k + 1):
            kinds = (keys.words(values, "side", column) & np.uint64(1)).astype(np.int64)
            sides = sides * (2 * kinds - 1)[chosen[:, column]] * known[:, column]
        logit += PAIR * sides
    for k in range(NUMBERS):
        sizes = np.log1p(np.maximum(numbers[:, k], 0))
        logit += (-1) ** k * NUMBER * sizes * present[:, k]
    return logit


def write(path: Path, settings: Mapping[str, Any]) -> None:
    """Write a click log in Criteo's format."""
    log = planted(settings["examples"], settings["values"])
    columns = [log.click.astype("U1")]
    for k in range(clicks.NUMBERS):
        columns.append(np.where(log.empty[:, k], "", log.numbers[:, k].astype("U11")))
    for k in range(clicks.CATEGORIES):
        words = keys.words(settings["values"], "name", k) >> np.uint64(32)
        names = np.array([f"{word:08x}" for word in words.tolist()])
        empty = log.empty[:, clicks.NUMBERS + k]
        columns.append(np.where(empty, "", names[log.values[:, k]]))
    lines = map("\t".join, zip(*(column.tolist() for column in columns)))
    path.write_text("\n".join(lines) + "\n", newline="\n")
