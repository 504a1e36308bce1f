"""Changes to archives: bytes, members, and records with all their hashes made to fit."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from lockstep.archive import container, layout, manifest, scan

Contents = dict[str, bytes]


def load(path: Path) -> Contents:
    """Return all members of an archive."""
    with open(path, "rb") as stream:
        reader = scan.Reader(stream)
        return {name: reader.bytes_of(name) for name in reader.members}


def store(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write an archive of these members, whose form is right."""
    with open(path, "wb") as stream:
        writer = container.Writer(stream)
        for name, content in contents.items():
            writer.add(name, [content], len(content))
        writer.close()


def reseal(
    contents: Contents, *, blocks: bool = True, crate: bool = True, links: Collection[str] = ()
) -> Contents:
    """Make manifest, blocks and description fit the contents, as a careful forger would.

    Args:
        blocks, crate: whether blocks' manifests and the description are made to fit.
        links: members that are links besides those that were.
    """
    made = dict(contents)
    told = json.loads(made[layout.MANIFEST])
    del told["digest"]
    top = f"{layout.RESULTS}{told['study']}/"
    for name in [n for n in made if n.startswith(f"{top}blocks/")] if blocks else []:
        block = json.loads(made[name])
        for run, line in block["runs"].items():
            for record in line["sha256"]:
                content = made.get(f"{top}runs/{run}/{record}")
                if content is not None:
                    line["sha256"][record] = hashlib.sha256(content).hexdigest()
        made[name] = json.dumps(block, indent=2).encode() + b"\n"
    told["files"] |= {name: {"link": True} for name in links}
    told["files"] = {n: _line(told, n, made) for n in made if n != layout.MANIFEST}
    if crate:
        made[layout.CRATE] = _described(made[layout.CRATE], told["files"])
        told["files"][layout.CRATE] = _line(told, layout.CRATE, made)
    made[layout.MANIFEST] = manifest.render(told)
    return made


def _line(told: Mapping, name: str, made: Contents) -> dict:
    kept = told["files"].get(name, {})
    return {**kept, **manifest.entry(made[name])}


def _described(content: bytes, listed: Mapping) -> bytes:
    told = json.loads(content)
    trees = manifest.Trees(listed)
    for entity in told["@graph"]:
        name = entity["@id"]
        if "contentSize" in entity and name in listed:
            entity["contentSize"] = str(listed[name]["bytes"])
        if "sha256" not in entity or name.startswith("#"):
            continue
        entity["sha256"] = trees.digest(name) if name.endswith("/") else None
        if entity["sha256"] is None:
            entity["sha256"] = listed[name]["sha256"] if name in listed else "0" * 64
    return json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def forge(path: Path, change: Callable[[Contents], None], **options: Any) -> None:
    """Change members of an archive and make every hash in it fit (see `reseal`)."""
    contents = load(path)
    change(contents)
    store(path, reseal(contents, **options))


def replace_member(path: Path, name: str, content: bytes) -> None:
    """Change a member and nothing else, as a zip program does: checksum and sizes fit."""
    contents = load(path)
    contents[name] = content
    store(path, contents)


def flip(path: Path, place: int, bits: int) -> None:
    """Change one byte."""
    with open(path, "r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ bits]))


def owner(path: Path, place: int) -> str:
    """Return the member that a byte belongs to, by content or header; the end has no name."""
    with open(path, "rb") as stream:
        for member in scan.Reader(stream).members.values():
            if place < member.end:
                return member.name
    return ""


def edit_json(contents: Contents, name: str, change: Callable[[dict], None]) -> None:
    """Change a JSON file."""
    value = json.loads(contents[name])
    change(value)
    contents[name] = json.dumps(value, indent=2).encode() + b"\n"


def edit_table(contents: Contents, name: str, column: str, factor: float) -> None:
    """Multiply a number in the last row of a CSV file."""
    rows = [line.split(",") for line in contents[name].decode().splitlines()]
    place = rows[0].index(column)
    rows[-1][place] = repr(float(rows[-1][place]) * factor)
    contents[name] = "".join(",".join(row) + "\n" for row in rows).encode()
