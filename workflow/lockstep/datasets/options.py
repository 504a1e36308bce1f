"""Checks of a source's options that sources share: one line, beginning with ``options.KEY``."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from lockstep.errors import UserError, nearest


def complete(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with defaults filled in.

    Raises:
        UserError: names an unknown option and the nearest known one.
    """
    unknown = sorted(map(str, options.keys() - defaults.keys()))
    if unknown:
        raise UserError(f"options.{unknown[0]} is unknown; {nearest(unknown[0], defaults)}")
    return {**defaults, **options}


def text(name: str, value: Any) -> None:
    """Raise UserError unless an option is a text."""
    if not isinstance(value, str):
        raise UserError(f"options.{name} is {value!r}; it must be a text")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UserError(f"options.{name} is {value!r}, which holds what no text may hold")


def whole(name: str, value: Any, least: int, most: int) -> None:
    """Raise UserError unless an option is a whole number of a range."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise UserError(
            f"options.{name} is {value!r}; it must be a whole number from {least} to {most}"
        )


def one_of(name: str, value: Any, choices: tuple[Any, ...]) -> None:
    """Raise UserError unless an option is one of its choices."""
    if not any(value is choice or value == choice for choice in choices):
        raise UserError(f"options.{name} is {value!r}; {nearest(str(value), map(str, choices))}")


def patterns(name: str, value: Any) -> tuple[str, ...]:
    """Return an option that names files in the raw folder: a name, a pattern, or a list of them.

    Raises:
        UserError: it is something else, or leads out of the folder.
    """
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not found:
        raise UserError(f"options.{name} is {value!r}; it must be a file's name or a list of them")
    for pattern in found:
        text(name, pattern)
        path = PurePosixPath(pattern)
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise UserError(f"options.{name} is {pattern!r}; it must be the name of a file in raw")
    return tuple(found)


def splits(settings: Mapping[str, Any]) -> None:
    """Check `train`, and `test`, which may be None: names or patterns of files.

    Raises:
        UserError: as `patterns`.
    """
    for name in ("train", "test"):
        if name == "train" or settings[name] is not None:
            patterns(name, settings[name])


def files(name: str, raw: Path, wanted: tuple[str, ...]) -> list[Path]:
    """Return the files of the raw folder that patterns name, in the order of the patterns.

    Raises:
        UserError: a pattern names none.
    """
    result: list[Path] = []
    for pattern in wanted:
        matched = sorted(path for path in raw.glob(pattern) if path.is_file())
        if not matched:
            raise UserError(f"{raw / pattern}: no such file (options.{name})")
        result += [path for path in matched if path not in result]
    return result
