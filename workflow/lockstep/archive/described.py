"""Whether the crate's description is of what is in the archive, and of the study in it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lockstep.archive import layout, manifest, people, readme, statements
from lockstep.archive.findings import Check
from lockstep.study import Study

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
    profiles = [p["@id"] for p in _several(entities["./"].get("conformsTo"))]
    if PROFILE not in profiles:
        yield f"does not conform to {PROFILE}"
    trees = manifest.Trees(listed)
    for identifier, entity in entities.items():
        kinds = _several(entity.get("@type"))
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
    for name in listed:
        if name != layout.CRATE and not _covered(name, entities):
            yield f"does not tell of {name}"


def _covered(name: str, entities: Mapping[str, Any]) -> bool:
    parts = name.split("/")
    folders = ("/".join(parts[:depth]) + "/" for depth in range(1, len(parts)))
    return name in entities or any(folder in entities for folder in folders)


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


# Of the study ---------------------------------------------------------------------------------


def study(of: Study, missing: Sequence[str], crate: Path, data: Path) -> Check:
    """Does the description say of study, data and runs what config and records say?

    Args:
        missing: what the manifest says is missing.
        crate: the description.
        data: the folder with the manifests of datasets and images.
    """
    graph = json.loads(crate.read_bytes())["@graph"]
    entities = {entity["@id"]: entity for entity in graph}
    wrong = [
        f"{identifier}: its {key} is not what config and records make it"
        for identifier, fields in _expected(of, readme.state(of, missing), data)
        for key, value in fields.items()
        if _plain(entities.get(identifier, {}).get(key)) != _plain(value)
    ]
    paths = sorted((data / "images").glob("*/manifest.json"))
    images = [statements.image(json.loads(p.read_bytes()), p.parent.name) for p in paths]
    wrong += [
        f"{identifier}: is not what data/images says"
        for identifier, entity in entities.items()
        if "ContainerImage" in _several(entity.get("@type"))
        and not any(fields.items() <= entity.items() for fields in images)
    ]
    return Check(
        name="described",
        says="people, licences, datasets, images and runs, as config and records say",
        wrong=[f"{layout.CRATE}: {problem}" for problem in wrong],
    )


def _expected(of: Study, state: str, data: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what must be said, each with the identifier of what it is said of."""
    people_and_licence: dict[str, dict[str, Any]] = {}

    def add(identifier: str, kind: str, /, **properties: Any) -> dict[str, str]:
        people_and_licence[identifier] = {"@type": kind, **properties}
        return {"@id": identifier}

    yield "./", statements.root(add, people.about(of), state)
    yield from people_and_licence.items()
    for path in sorted((data / "datasets").glob("*/manifest.json")):
        told = json.loads(path.read_bytes())
        yield f"{layout.DATA}datasets/{path.parent.name}/", statements.dataset(told)
    yield from statements.of_runs(of)


def _plain(value: Any) -> Any:
    """Return a value as a description has it: one is no list."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value
