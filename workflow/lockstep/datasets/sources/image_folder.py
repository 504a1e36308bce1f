"""Images in folders, `split/class/file.jpg`: the layout of ImageNet.

What decodes is imported late: a config's options are checked where there is neither NumPy nor
Pillow.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from lockstep.datasets import folders, staged
from lockstep.datasets.survey import Original, Survey
from lockstep.errors import UserError, nearest

if TYPE_CHECKING:
    import numpy as np

DEFAULTS: dict[str, Any] = {
    "size": 256,  # stored images are size x size
    "splits": None,  # from train and test to their folders; found by their names if absent
    "classes": None,  # so many, or these; all if absent
    "limit": None,  # so many files of each class, a number for all splits or one for each
    "corrupt": "refuse",  # or skip: leave them out and count them
    "shard": None,  # examples in a shard; what makes up to 256 MiB if absent
    "origin": "images in folders, staged by a person",
    "licence": "unknown",
}
SPLITS = ("train", "test")
TEST_FOLDERS = ("test", "val", "validation")
LARGEST = 8192
SHARD_BYTES = 4 << 30  # a shard is made in memory


def check(options: Mapping[str, Any]) -> None:
    """Check the options of a config's entry, as far as the images need not be known.

    Raises:
        UserError: names the option, what is wrong with it and what would be right.
    """
    unknown = sorted(map(str, options.keys() - DEFAULTS.keys()))
    if unknown:
        raise UserError(f"options.{unknown[0]} is unknown; {nearest(unknown[0], DEFAULTS)}")
    settings = {**DEFAULTS, **options}
    _whole("size", settings["size"], LARGEST)
    if settings["shard"] is not None:
        most = SHARD_BYTES // (3 * settings["size"] ** 2)
        _whole("shard", settings["shard"], most)
    if settings["classes"] is not None and not _is_names(settings["classes"]):
        _whole("classes", settings["classes"])
    _check_limit(settings["limit"])
    if settings["corrupt"] not in ("refuse", "skip"):
        raise UserError(f"options.corrupt is {settings['corrupt']!r}; it must be refuse or skip")
    for name in ("origin", "licence"):
        _text(name, settings[name])
    if settings["splits"] is not None:
        _check_splits(settings["splits"])


def survey(raw: Path, options: Mapping[str, Any]) -> Survey:
    """List the images. The first `limit` files of each class, sorted by name, are taken.

    Raises:
        UserError: the options or the folders are not as they should be.
    """
    from lockstep.datasets import pictures

    check(options)
    settings = {**DEFAULTS, **options}
    try:
        named = settings["splits"] or _found(raw)
        places = {split: str(PurePosixPath(named[split])) for split in SPLITS}
        splits = folders.listed(raw, places)
    except OSError as error:
        raise staged.unreadable(raw, error) from error
    classes = _chosen(list(splits["train"].classes), settings["classes"])
    originals = {
        split: [
            Original(f"{places[split]}/{name}/{file}", label)
            for label, name in enumerate(classes)
            for file in found.classes[name][: _limit(settings["limit"], split)]
        ]
        for split, found in splits.items()
    }
    passed_over = Counter(
        {
            "beyond the limits": sum(
                sum(map(len, found.classes.values())) - len(originals[split])
                for split, found in splits.items()
            )
        }
    )
    for found in splits.values():
        passed_over.update(found.passed_over)
    size = settings["size"]
    return Survey(
        classes=tuple(classes),
        splits=originals,
        example_shape=(size, size, 3),
        skip=settings["corrupt"] == "skip",
        passed_over=+passed_over,
        tools=pictures.versions(),
        origin=settings["origin"],
        licence=settings["licence"],
        shard_examples=settings["shard"],
    )


def decode(content: bytes, options: Mapping[str, Any]) -> "tuple[np.ndarray, list[str]]":
    """Return one image uint8 ``(size, size, 3)`` and what is worth counting.

    Raises:
        Undecodable: says why.
    """
    from lockstep.datasets import pictures

    return pictures.square(content, options.get("size", DEFAULTS["size"]))


def _found(raw: Path) -> dict[str, str]:
    there = [name for name in TEST_FOLDERS if (raw / name).is_dir()]
    if len(there) > 1:
        raise UserError(
            f"{raw}: both {' and '.join(there)} may be the test split; say which by "
            f"options.splits, such as {{train: train, test: {there[1]}}}"
        )
    return {"train": "train", "test": there[0] if there else TEST_FOLDERS[0]}


def _chosen(there: list[str], wanted: int | list[str] | None) -> list[str]:
    if wanted is None:
        return there
    if isinstance(wanted, int):
        if wanted > len(there):
            raise UserError(f"options.classes is {wanted}, but there are {len(there)}")
        return there[:wanted]
    unknown = sorted(set(wanted) - set(there))
    if unknown:
        raise UserError(f"options.classes names {unknown[0]!r}; {nearest(unknown[0], there)}")
    return sorted(set(wanted))


def _limit(limit: Any, split: str) -> int | None:
    return limit.get(split) if isinstance(limit, Mapping) else limit


# The options ---------------------------------------------------------------------------------


def _check_limit(limit: Any) -> None:
    if not isinstance(limit, Mapping):
        limit = {} if limit is None else {"": limit}
    elif not limit.keys() <= set(SPLITS):
        unknown = sorted(map(str, limit.keys() - set(SPLITS)))[0]
        raise UserError(f"options.limit.{unknown} is unknown; {nearest(unknown, SPLITS)}")
    for split, value in limit.items():
        if value is not None or not split:
            _whole(f"limit.{split}".rstrip("."), value)


def _check_splits(splits: Any) -> None:
    if not isinstance(splits, Mapping) or set(splits) != set(SPLITS):
        raise UserError(f"options.splits is {splits!r}; it must name the folders of train and test")
    for split, place in splits.items():
        name = f"splits.{split}"
        _text(name, place)
        path = PurePosixPath(place)
        if not place or path.is_absolute() or ".." in path.parts:
            raise UserError(f"options.{name} is {place!r}; it must be the name of a folder in raw")


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise UserError(f"options.{name} is {value!r}; it must be a text")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UserError(f"options.{name} is {value!r}, which holds what no text may hold")


def _whole(name: str, value: Any, most: int | None = None) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or value < 1 or (most and value > most):
        upper = f" to {most}" if most else ""
        raise UserError(f"options.{name} is {value!r}; it must be a whole number from 1{upper}")
