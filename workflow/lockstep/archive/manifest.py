"""The list of everything in an archive, with hashes, in one canonical form."""

import bisect
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from lockstep import files
from lockstep.archive import layout
from lockstep.errors import UserError

FIELDS = {
    "study": str,
    "lockstep": str,
    "complete": bool,
    "missing": list,
    "include": dict,
    "source": dict,
    "files": dict,
}


class Trees:
    """The files of an archive, to be asked for what is below a folder: of many, many times."""

    def __init__(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        self.entries = entries
        self.names = sorted(entries)

    def below(self, folder: str) -> list[str]:
        """Return the names that begin with `folder`, which ends in a slash."""
        first = bisect.bisect_left(self.names, folder)
        behind = bisect.bisect_left(self.names, folder[:-1] + chr(ord("/") + 1))
        return self.names[first:behind]

    def digest(self, folder: str) -> str:
        """Return one hash over names, sizes and hashes of all files below a folder."""
        lines = ((name, self.entries[name]) for name in self.below(folder))
        return files.digest([[name, line["bytes"], line["sha256"]] for name, line in lines])


def render(fields: Mapping[str, Any]) -> bytes:
    """Return a manifest's bytes: readable, and the same for the same fields."""
    sealed = {**fields, "digest": files.digest(fields)}
    text = json.dumps(sealed, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return text.encode() + b"\n"


def read(content: bytes) -> dict[str, Any]:
    """Return a manifest's fields.

    Raises:
        UserError: it is not one that this version reads.
        ValueError: it was changed.
    """
    try:
        fields = json.loads(content)
        if not isinstance(fields, dict):
            raise ValueError("it is not a list of files any more")
        schema = fields.get("schema")
        sealed = fields.pop("digest", None)
        whole = render(fields) == content and sealed == files.digest(fields)
    except RecursionError as error:
        raise ValueError(f"it is nested too deeply ({error})") from error
    if schema == layout.SCHEMA and not whole:
        raise ValueError("its own digest does not hold")
    if schema != layout.SCHEMA:
        raise UserError(
            f"the archive has schema {schema!r}; this version of Lockstep reads {layout.SCHEMA} "
            "(its source is in the archive: use that version)"
        )
    if not _sound(fields):
        raise ValueError("it has not the fields that it must have")
    for name, line in fields["files"].items():
        for note in ("link", "executable"):
            if line.get(note) and not name.startswith(layout.SOURCE):
                raise ValueError(f"{name} is marked as {note}, which only a file of source/ can be")
    return {**fields, "digest": sealed}


def _sound(fields: Mapping[str, Any]) -> bool:
    def has(value: Any, kinds: Mapping[str, Any]) -> bool:
        return isinstance(value, dict) and all(isinstance(value.get(k), kinds[k]) for k in kinds)

    if not has(fields, FIELDS):
        return False
    return (
        all(isinstance(name, str) for name in fields["missing"])
        and all(isinstance(chosen, bool) for chosen in fields["include"].values())
        and has(fields["source"], {"commit": str | None, "note": str})
        and all(has(entry, {"bytes": int, "sha256": str}) for entry in fields["files"].values())
    )


def entry(content: bytes) -> dict[str, Any]:
    """Return a small file's line."""
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
