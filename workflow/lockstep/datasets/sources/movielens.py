"""MovieLens ratings that a person staged: will this user like this film?

Found by its files: `u.data` and `u.user` (100k), `ratings.dat` and `users.dat` (1M), `ratings.csv`
(20M and later, which has no users), or RecBole's `*.inter` and `*.user`. User, item and, where they
are there, gender, age and occupation are categories: row 0 of a table is for what is missing, the
others are for the known values in sorted order. The dense number is the hour of the day, from 0 to
1. A rating counts as a click if it is at least `liked`. The split is by time: the last of
`test_part` parts is for testing; equal times are in the order of the file.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.datasets import options, staged
from lockstep.datasets.sources.criteo import check_split
from lockstep.errors import UserError

ORIGIN = "MovieLens (F. M. Harper and J. A. Konstan, 2015), staged by a person"
LICENCE = "GroupLens: not to be redistributed without permission"
DEFAULTS: dict[str, Any] = {"liked": 4.0, "test_part": 10}
LAYOUTS = {
    "100k": ("u.data", "\t", "u.user", "|"),
    "1m": ("ratings.dat", "::", "users.dat", "::"),
    "20m": ("ratings.csv", ",", None, ""),
    "recbole": ("*.inter", "\t", "*.user", "\t"),
}
"""Of each layout the files of ratings and of users, with what separates their fields."""
USER_FIELDS = {"100k": (2, 1, 3), "1m": (1, 2, 3), "recbole": (2, 1, 3)}
"""Columns of gender, age and occupation."""
RATING = (0.5, 5.0)


def check(given: Mapping[str, Any]) -> None:
    """Check the options of a config's entry.

    Raises:
        UserError: names the option, what is wrong with it and what would be right.
    """
    settings = options.complete(given, DEFAULTS)
    options.whole("test_part", settings["test_part"], 2, 1 << 20)
    liked = settings["liked"]
    if isinstance(liked, bool) or not isinstance(liked, int | float) or not 0.5 < liked <= 5:
        raise UserError(f"options.liked is {liked!r}; it must be a rating, more than 0.5, up to 5")


def read(raw: Path, given: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Yield `(split, arrays)`.

    Yields:
        `dense`, float32 ``(N, 1)``; `ids`, int32 ``(N, 2)`` or ``(N, 5)``; `click`, uint8 ``(N,)``.

    Raises:
        UserError: by file and line, what is wrong with a rating or a user.
    """
    settings = options.complete(given, DEFAULTS)
    path, users, ratings = _ratings(raw)
    order = np.argsort(ratings["time"], kind="stable")
    columns = [_rows(ratings["user"]), _rows(ratings["item"])]
    if users is not None:
        columns += _of_users(path, users, ratings)
    arrays = {
        "dense": (ratings["time"] % 86400 / 86400).astype(np.float32)[:, None],
        "ids": np.stack(columns, axis=1).astype(np.int32),
        "click": (ratings["rating"] >= settings["liked"]).astype(np.uint8),
    }
    first = len(order) - len(order) // settings["test_part"]
    for split, part in (("train", order[:first]), ("test", order[first:])):
        check_split(raw, split, arrays["click"][part])
        yield split, {name: array[part] for name, array in arrays.items()}


def describe(raw: Path, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the rows of each table."""
    path, users, ratings = _ratings(raw)
    columns = [_rows(ratings["user"]), _rows(ratings["item"])]
    if users is not None:
        columns += _of_users(path, users, ratings)
    return {"rows": [int(column.max()) + 1 for column in columns]}, {}


def _rows(values: np.ndarray) -> np.ndarray:
    """Return the row of each value, from 1 on, in sorted order."""
    return np.unique(values, return_inverse=True)[1] + 1


def _ratings(raw: Path) -> tuple[Path, dict[int, tuple[str, str, str]] | None, dict]:
    """Return the file of ratings, the users by number, and `user`, `item`, `rating`, `time`."""
    layout, path = _layout(raw)
    _, separator, of_users, between = LAYOUTS[layout]
    header = layout in ("20m", "recbole")
    found: dict[str, list[float]] = {"user": [], "item": [], "rating": [], "time": []}
    adders = [found[name].append for name in found]
    for number, line in _lines(path, header):
        fields = line.split(separator)
        if len(fields) != 4:
            raise UserError(
                f"{path}, line {number}: has {len(fields)} fields, not 4 (user, item, rating, time)"
            )
        try:
            values = (int(fields[0]), int(fields[1]), float(fields[2]), int(float(fields[3])))
        except (ValueError, OverflowError):
            raise UserError(f"{path}, line {number}: {line[:60]!r} are no four numbers") from None
        if not RATING[0] <= values[2] <= RATING[1] or values[2] * 2 % 1:
            raise UserError(
                f"{path}, line {number}: the rating is {fields[2]}; it must be from 0.5 to 5 in "
                "half stars"
            )
        for add, value in zip(adders, values):
            add(value)
    if not found["user"]:
        raise UserError(f"{path}: holds no ratings")
    arrays = {name: np.array(column) for name, column in found.items()}
    users = None
    if of_users is not None:
        users = _users(raw, of_users, between, USER_FIELDS[layout], header)
    return path, users, arrays


def _layout(raw: Path) -> tuple[str, Path]:
    """Return the layout of the files in a folder, and that of ratings."""
    staged.check_folder(raw, "MovieLens' files")
    for layout, (pattern, *_) in LAYOUTS.items():
        for path in sorted(raw.rglob(pattern)):
            return layout, path
    wanted = ", ".join(pattern for pattern, *_ in LAYOUTS.values())
    raise UserError(f"{raw}: holds no ratings; MovieLens has them in one of {wanted}")


def _users(
    raw: Path, pattern: str, separator: str, fields: tuple[int, int, int], header: bool
) -> dict[int, tuple[str, str, str]]:
    path = next(iter(sorted(raw.rglob(pattern))), None)
    if path is None:
        raise UserError(f"{raw}: has ratings without users; put {pattern} beside them")
    users = {}
    for number, line in _lines(path, header):
        values = line.split(separator)
        if len(values) < 5 or not values[0].isdecimal():
            raise UserError(f"{path}, line {number}: {line[:60]!r} is no user with five fields")
        gender, age, work = (values[field] for field in fields)
        users[int(values[0])] = gender, age.zfill(3), work
    return users


def _of_users(
    path: Path, users: Mapping[int, tuple[str, str, str]], ratings: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Return the rows of gender, age and occupation of each rating's user."""
    known, place = np.unique(ratings["user"], return_inverse=True)
    for user in known.tolist():
        if user not in users:
            raise UserError(f"{path}: has ratings of user {user}, who is not among the users")
    # Sorted over all users, whether they have rated or not.
    result = []
    for field in range(3):
        rows = {value: k + 1 for k, value in enumerate(sorted({u[field] for u in users.values()}))}
        result.append(np.array([rows[users[user][field]] for user in known.tolist()])[place])
    return result


def _lines(path: Path, header: bool) -> Iterator[tuple[int, str]]:
    """Yield lines with their numbers; latin-1 knows every byte, and numbers are ASCII."""
    try:
        with path.open(encoding="latin-1", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                if number > 1 or not header:
                    yield number, line.rstrip("\r\n")
    except OSError as error:
        raise staged.unreadable(path, error) from error
