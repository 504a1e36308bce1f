"""Whether the crate's description is of what is in the archive."""

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from lockstep.archive import layout, manifest
from lockstep.archive.findings import Check

PROFILE = "https://w3id.org/ro/wfrun/provenance/0.5"


def check(content: bytes, listed: Mapping[str, Mapping[str, Any]]) -> Check:
    """Compare ``ro-crate-metadata.json`` with the manifest's lines."""
    try:
        graph = json.loads(content)["@graph"]
        entities = {entity["@id"]: entity for entity in graph}
        wrong = list(_wrong(entities, listed))
        if len(entities) != len(graph):
            wrong.append("describes something twice")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        entities, wrong = {}, [f"not a description of a crate ({error!r})"]
    return Check(
        name="crate",
        says=f"{len(entities)} entities; what they say of files and folders is so",
        wrong=[f"{layout.CRATE}: {problem}" for problem in wrong],
    )


def _wrong(
    entities: Mapping[str, Mapping[str, Any]], listed: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    profiles = [p["@id"] for p in several(entities["./"].get("conformsTo"))]
    if PROFILE not in profiles:
        yield f"does not conform to {PROFILE}"
    trees = manifest.Trees(listed)
    for identifier, entity in entities.items():
        kinds = several(entity.get("@type"))
        name = unquote(identifier)
        if identifier in ("./", layout.CRATE) or name.startswith("#") or "://" in name:
            continue
        if "Dataset" in kinds:
            if not name.endswith("/") or not trees.below(name):
                yield f"names {name}, below which nothing is"
            elif entity.get("sha256") != trees.digest(name):
                yield f"{name}: its hash is not that of what is below it"
        elif "File" in kinds and name != layout.MANIFEST:
            line = listed.get(name)
            if line is None:
                yield f"names {name}, which is not there"
            elif name != layout.CRATE and entity.get("sha256") != line["sha256"]:
                yield f"{name}: its hash is not that of the file"
            elif name != layout.CRATE and entity.get("contentSize") != str(line["bytes"]):
                yield f"{name}: its contentSize is not that of the file"
    for name in listed:
        if name != layout.CRATE and not _covered(name, entities):
            yield f"does not tell of {name}"


def _covered(name: str, entities: Mapping[str, Any]) -> bool:
    parts = name.split("/")
    folders = ("/".join(parts[:depth]) + "/" for depth in range(1, len(parts)))
    return name in entities or any(folder in entities for folder in folders)


def several(value: Any) -> list[Any]:
    """Return a value of a description as a list: one is none."""
    return value if isinstance(value, list) else [] if value is None else [value]
