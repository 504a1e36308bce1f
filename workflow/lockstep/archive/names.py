"""Which names are safe to write into a folder, where case counts and where it does not."""

import unicodedata
from collections.abc import Iterable

LONGEST, LONGEST_PART = 1000, 255  # in bytes


def flaw(names: Iterable[str]) -> str | None:
    """Return what is wrong with the first name that could leave its folder, or with the first two
    that could meet in one file; None if no name can.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        problem = _problem(name)
        if problem:
            return f"a file called {name!r}, {problem}"
        folded = fold(name)
        if folded in files:
            return f"{files[folded]!r} and {name!r}, which are one file where case does not count"
        files[folded] = name
        parts = folded.split("/")
        for depth in range(1, len(parts)):
            folders.setdefault("/".join(parts[:depth]), name)
    for folded in sorted(files.keys() & folders.keys()):
        return f"the file {files[folded]!r}, which is also a folder, of {folders[folded]!r}"
    return None


def fold(name: str) -> str:
    """Return a name as file systems compare it that ignore case and composition."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _problem(name: str) -> str | None:
    try:
        parts = name.encode().split(b"/")
    except UnicodeEncodeError:
        return "which is not UTF-8"
    if not name or sum(map(len, parts)) > LONGEST or max(map(len, parts)) > LONGEST_PART:
        return "which is empty or very long"
    if name.startswith("/") or name[1:2] == ":":
        return "which is absolute"
    if "\\" in name or any(unicodedata.category(c) == "Cc" for c in name):
        return "which has characters that no name should have"
    if any(part in (b"", b".", b"..") for part in parts):
        return "which points out of its folder or to a folder"
    return None
