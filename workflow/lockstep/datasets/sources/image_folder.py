"""Images in folders, `split/class/file.jpg`: the layout of ImageNet."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.datasets import folders, pictures
from lockstep.datasets.survey import Original, Survey
from lockstep.errors import UserError, nearest

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
TEST_FOLDERS = ("test", "val", "validation")


def survey(raw: Path, options: Mapping[str, Any]) -> Survey:
    """List the images. The first `limit` files of each class, sorted by name, are taken.

    Raises:
        UserError: the options or the folders are not as they should be.
    """
    settings = _settings(options)
    places = settings["splits"] or _found(raw)
    splits = folders.listed(raw, {split: places[split] for split in ("train", "test")})
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


def decode(content: bytes, options: Mapping[str, Any]) -> tuple[np.ndarray, list[str]]:
    """Return one image uint8 ``(size, size, 3)`` and what is worth counting.

    Raises:
        Undecodable: says why.
    """
    return pictures.square(content, options.get("size", DEFAULTS["size"]))


def _settings(options: Mapping[str, Any]) -> dict[str, Any]:
    unknown = sorted(options.keys() - DEFAULTS.keys())
    if unknown:
        hint = nearest(unknown[0], DEFAULTS)
        raise UserError(f"image_folder has no option {unknown[0]!r}; {hint}")
    settings = {**DEFAULTS, **options}
    _whole("size", settings["size"])
    for name in ("shard", "classes"):
        if settings[name] is not None and not (name == "classes" and _is_names(settings[name])):
            _whole(name, settings[name])
    if settings["corrupt"] not in ("refuse", "skip"):
        raise UserError(f"option corrupt is {settings['corrupt']!r}; it must be refuse or skip")
    for name in ("origin", "licence"):
        if not isinstance(settings[name], str):
            raise UserError(f"option {name} is {settings[name]!r}; it must be a text")
    splits = settings["splits"]
    if splits is not None and (not isinstance(splits, Mapping) or set(splits) != {"train", "test"}):
        raise UserError(f"option splits is {splits!r}; it must name the folders of train and test")
    return settings


def _found(raw: Path) -> dict[str, str]:
    test = next((name for name in TEST_FOLDERS if (raw / name).is_dir()), TEST_FOLDERS[0])
    return {"train": "train", "test": test}


def _chosen(there: list[str], wanted: int | list[str] | None) -> list[str]:
    if wanted is None:
        return there
    if isinstance(wanted, int):
        if wanted > len(there):
            raise UserError(f"option classes is {wanted}, but there are {len(there)}")
        return there[:wanted]
    unknown = sorted(set(wanted) - set(there))
    if unknown:
        raise UserError(f"option classes names {unknown[0]!r}; {nearest(unknown[0], there)}")
    return sorted(set(wanted))


def _limit(limit: Any, split: str) -> int | None:
    if isinstance(limit, Mapping) and not limit.keys() <= {"train", "test"}:
        unknown = sorted(limit.keys() - {"train", "test"})[0]
        raise UserError(f"option limit names {unknown!r}; {nearest(unknown, ('train', 'test'))}")
    value = limit.get(split) if isinstance(limit, Mapping) else limit
    if value is not None:
        _whole("limit", value)
    return value


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)


def _whole(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"option {name} is {value!r}; it must be a whole number from 1")
