"""Which names of members are safe to write into a folder, on any file system."""

import unicodedata
from collections.abc import Iterable

from lockstep.errors import UserError

LONGEST = 1000


def check(names: Iterable[str]) -> None:
    """Refuse names that could leave the target folder or meet in one file.

    Raises:
        UserError: names the first hostile one.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for name in names:
        problem = _problem(name)
        if problem:
            raise UserError(f"the archive has a member called {name!r}, {problem}; not touched")
        folded = fold(name)
        if folded in files:
            raise UserError(
                f"the archive's members {files[folded]!r} and {name!r} are one file where case "
                "does not count; not touched"
            )
        files[folded] = name
        parts = folded.split("/")
        for depth in range(1, len(parts)):
            folders.setdefault("/".join(parts[:depth]), name)
    for folded in files.keys() & folders.keys():
        raise UserError(
            f"the archive's member {files[folded]!r} is also a folder, of {folders[folded]!r}; "
            "not touched"
        )


def fold(name: str) -> str:
    """Return a name as file systems compare it that ignore case and composition."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _problem(name: str) -> str | None:
    if not name or len(name) > LONGEST:
        return "which is empty or very long"
    if name.startswith("/") or name[1:2] == ":":
        return "which is absolute"
    if "\\" in name or any(ord(c) < 32 or ord(c) == 127 for c in name):
        return "which has characters that no name should have"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "which points out of its folder or to a folder"
    return None
