"""The layout of ImageNet, `split/class/file`: what is listed, what is passed over, what refused.

Nothing is opened here. Everything is sorted by name (code points, whatever the locale), so that the
order of the examples is that of the names alone.
"""

import errno
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from lockstep.errors import UserError

Inode = tuple[int, int]

NO_IMAGES = {"thumbs.db", "ehthumbs.db", "desktop.ini"}
"""Files that systems leave in folders of images, in small letters."""
NO_SUFFIXES = {".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".html", ".log"}
"""Ends of names of what people leave there. All else in a class is an image, or damaged."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """One listed split: the sorted file names of each class, and what was passed over."""

    classes: Mapping[str, tuple[str, ...]]
    passed_over: Counter[str]


def listed(raw: Path, folders: Mapping[str, str]) -> dict[str, Split]:
    """List the splits of a raw folder.

    Args:
        folders: from each split to its folder below `raw`.

    Raises:
        UserError: a folder is missing, empty, in a loop or there twice, or classes differ.
        OSError: the system does not let us look at one.
    """
    if not raw.is_dir():
        raise UserError(f"{raw}: no such folder; name the one that holds the images as `raw`")
    seen: dict[Inode, Path] = {}
    splits = {}
    for split, name in folders.items():
        folder = raw / name
        if not folder.is_dir():
            there = ", ".join(sorted(p.name for p in raw.iterdir() if p.is_dir())) or "no folders"
            raise UserError(f"{folder}: no such folder for the split {split}; {raw} has {there}")
        _once(folder, seen)
        splits[split] = _split(folder, seen)
    _same_classes(raw, folders, splits)
    return splits


def _split(folder: Path, seen: dict[Inode, Path]) -> Split:
    passed_over: Counter[str] = Counter()
    classes: dict[str, tuple[str, ...]] = {}
    for entry in _entries(folder):
        path = folder / entry.name
        if entry.name.startswith("."):
            passed_over["hidden"] += 1
        elif _is_nowhere(entry):
            raise UserError(
                f"{path}: is a link that leads nowhere; remove it, or bring back "
                f"{path.readlink()}, so that no class is lost"
            )
        elif not _is_folder(entry):
            passed_over["beside the classes"] += 1
        else:
            _once(path, seen)
            classes[entry.name] = _files(path, passed_over)
    if not classes:
        raise UserError(f"{folder}: holds no class folders; images must be in {folder}/CLASS/")
    _no_twins(folder, classes)
    empty = [name for name, found in classes.items() if not found]
    if empty:
        raise UserError(
            f"{folder}: {_some(empty, 'class is empty', 'classes are empty')}; remove the folder "
            "from all splits or put its images there"
        )
    return Split(classes=classes, passed_over=passed_over)


def _files(folder: Path, passed_over: Counter[str]) -> tuple[str, ...]:
    found = []
    for entry in _entries(folder):
        if entry.name.startswith("."):
            passed_over["hidden"] += 1
            continue
        known = _no_image(entry.name)
        if known and not _is_folder(entry):
            passed_over[known] += 1
            continue
        if _is_folder(entry):
            raise UserError(
                f"{folder / entry.name}: is a folder; a class's folder holds images alone"
            )
        if _is_special(entry):
            # To open a pipe is to wait for whoever writes into it.
            raise UserError(
                f"{folder / entry.name}: is no file but a pipe, a socket or a device; a class's "
                "folder holds images alone"
            )
        found.append(entry.name)
    return tuple(found)


def _no_image(name: str) -> str | None:
    """Return by what a file is known that nobody means as an image; None for all others."""
    small, suffix = name.lower(), PurePath(name).suffix.lower()
    if small in NO_IMAGES:
        return small
    return f"*{suffix}" if suffix in NO_SUFFIXES else None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror})") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # A link that leads to itself raises; one that leads nowhere is a file, which decoding names.
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError(f"{entry.path}: is a link that loops ({error.strerror})") from error


def _is_special(entry: os.DirEntry[str]) -> bool:
    # `is_dir` has asked the system already; a link that leads nowhere is left to decoding.
    return not entry.is_file() and not _is_nowhere(entry)


def _is_nowhere(entry: os.DirEntry[str]) -> bool:
    return entry.is_symlink() and not _is_folder(entry) and not Path(entry.path).exists()


def _once(folder: Path, seen: dict[Inode, Path]) -> None:
    """Note a folder; refuse one that was there under another name, or that leads back up."""
    real = folder.resolve()
    if folder.is_symlink() and folder.parent.resolve().is_relative_to(real):
        raise UserError(f"{folder}: is a link that loops, it leads back to {real}")
    status = folder.stat()
    first = seen.setdefault((status.st_dev, status.st_ino), folder)
    if first is not folder:
        raise UserError(f"{folder}: is the same folder as {first}; remove one of the two")


def _no_twins(folder: Path, classes: Iterable[str]) -> None:
    known: dict[str, str] = {}
    for name in classes:
        first = known.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if first != name:
            raise UserError(
                f"{folder}: the classes {first!r} and {name!r} differ in case or in the encoding "
                "of letters alone; they would be one on other machines; merge or rename them"
            )


def _same_classes(raw: Path, folders: Mapping[str, str], splits: Mapping[str, Split]) -> None:
    first, *others = splits
    for split in others:
        for lacking, having in ((split, first), (first, split)):
            missing = sorted(splits[having].classes.keys() - splits[lacking].classes.keys())
            if missing:
                raise UserError(
                    f"{raw / folders[lacking]}: lacks {_some(missing, 'class', 'classes')} of "
                    f"{raw / folders[having]}; all splits must have the same classes"
                )


def _some(names: list[str], one: str, many: str) -> str:
    """Say how many, and the first few of them."""
    few = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return f"{len(names)} {one if len(names) == 1 else many} ({few})"
