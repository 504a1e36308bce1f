"""Changes to archives: bytes, members, and records with all their hashes made to fit."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lockstep.archive import archive_reader, layout, zip_container

Contents = dict[str, bytes]


def load(path: Path) -> Contents:
    with open(path, "rb") as stream:
        reader = zip_container.Reader(stream)
        return {name: b"".join(reader.pieces(name)) for name in reader.sizes}


def about(path: Path) -> dict[str, Any]:
    """Return what an archive says of itself."""
    return json.loads(load(path)[layout.ABOUT])


def graph(path: Path) -> dict[str, Any]:
    """Return what an archive's description says, by identifier."""
    return {entity["@id"]: entity for entity in json.loads(load(path)[layout.CRATE])["@graph"]}


def store(path: Path, contents: Mapping[str, bytes]) -> None:
    """Write an archive of these members, whose form is right."""
    with open(path, "wb") as stream, zip_container.Writer(stream) as writer:
        for name, content in contents.items():
            writer.add(name, [content], len(content))


def reseal(contents: Contents, *, blocks: bool = True, crate: bool = True) -> Contents:
    """Make hashes, blocks and description fit the contents, as a careful forger would.

    Args:
        blocks, crate: whether blocks' manifests and the description are made to fit.
    """
    made = dict(contents)
    top = f"{layout.RESULTS}{json.loads(made[layout.ABOUT])['study']}/"
    for name in [n for n in made if n.startswith(f"{top}blocks/")] if blocks else []:
        block = json.loads(made[name])
        for run, line in block["runs"].items():
            for record in line["sha256"]:
                content = made.get(f"{top}runs/{run}/{record}")
                if content is not None:
                    line["sha256"][record] = hashlib.sha256(content).hexdigest()
        made[name] = json.dumps(block, indent=2).encode() + b"\n"
    if crate and layout.CRATE in made:
        made[layout.CRATE] = _described(made)
    hashes = {n: hashlib.sha256(c).hexdigest() for n, c in made.items() if n != layout.HASHES}
    made[layout.HASHES] = archive_reader.listing(hashes)
    return made


def _described(made: Contents) -> bytes:
    told = json.loads(made[layout.CRATE])
    for entity in told["@graph"]:
        content = made.get(entity["@id"])
        if content is not None and "contentSize" in entity:
            sha256 = hashlib.sha256(content).hexdigest()
            entity |= {"contentSize": str(len(content)), "sha256": sha256}
    return json.dumps(told, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def forge(path: Path, change: Callable[[Contents], object], **options: Any) -> None:
    """Change members of an archive and make every hash in it fit (see `reseal`)."""
    contents = load(path)
    change(contents)
    store(path, reseal(contents, **options))


def flip(path: Path, place: int, bits: int) -> None:
    with open(path, "r+b") as stream:
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ bits]))


def owner(path: Path, place: int) -> str:
    """Return the member that a byte belongs to, by content or header; the directory has no name."""
    with open(path, "rb") as stream:
        reader = zip_container.Reader(stream)
        for name, size in reader.sizes.items():
            if place < reader.places[name] + size:
                return name
    return ""


def put(told: Any, path: str, value: Any) -> None:
    """Change what is at a place; None takes it away, a function makes it of the old one.

    Args:
        path: keys and numbers, with points between them.
    """
    *parents, last = path.split(".")
    for name in parents:
        told = told[name if isinstance(told, dict) else int(name)]
    key: Any = last if isinstance(told, dict) else int(last)
    if value is None:
        del told[key]
    else:
        told[key] = value(told[key]) if callable(value) else value


def edit_json(contents: Contents, name: str, change: Callable[[dict], object]) -> None:
    value = json.loads(contents[name])
    change(value)
    contents[name] = json.dumps(value, indent=2).encode() + b"\n"


def edit_table(contents: Contents, name: str, column: str, factor: float) -> None:
    """Multiply a number in the last row of a CSV file."""
    rows = [line.split(",") for line in contents[name].decode().splitlines()]
    place = rows[0].index(column)
    rows[-1][place] = repr(float(rows[-1][place]) * factor)
    contents[name] = "".join(",".join(row) + "\n" for row in rows).encode()
