"""What the description says of the study, its datasets, images and runs: written by `crate`, and
compared here, which needs not the library that writes it.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lockstep.archive import deeds, layout, people, readme, story
from lockstep.archive.completeness import read
from lockstep.archive.described import several
from lockstep.archive.findings import Check
from lockstep.study import Study


def root(add: people.Add, about: people.About, note: str) -> dict[str, Any]:
    """Return what is said of the whole archive.

    Args:
        add: adds an entity that is no file, and returns it.
        note: what a reader must know first: whether runs are missing.
    """
    return {
        "name": about.title,
        "description": f"{about.description} {note}",
        "keywords": list(about.keywords),
        **({"citation": about.citation} if about.citation else {}),
        "author": [people.add_author(add, author) for author in about.authors],
        "publisher": people.add_organization(add, about.publisher),
        "license": people.add_licence(add, about.licence),
    }


def dataset(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of a dataset, by its manifest."""
    return {
        "name": told["name"],
        "description": f"{told['origin']}; content {told['content']}",
        "license": told["licence"],
        "isBasedOn": told["origin"],
        "identifier": told["identity"],
    }


def image(told: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Return what is said of an image, by its manifest and what its folder is called."""
    return {"name": folder, "tag": told["identity"], "sha256": told["sif"]["sha256"]}


def of_weights(study: Study) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what is said of runs' initial weights, each with its identifier."""
    states: dict[str, dict[str, Any]] = {}
    for run in study.runs:
        summary = read(study.run_folder(run) / "summary.json")
        try:
            weights = summary["contract"]["determined_by"]["weights"]
        except (KeyError, TypeError):
            continue  # what it is instead is said elsewhere
        states.setdefault(f"#state-{run.workload}-{run.seed}", {"value": weights})
    yield from states.items()


# Compared -------------------------------------------------------------------------------------


def check(study: Study, manifest: Mapping[str, Any], crate: Path, data: Path) -> Check:
    """Does the description say of study, data and runs what config and records say?

    Args:
        manifest: of the archive.
        crate: the description.
        data: the folder with the manifests of datasets and images.
    """
    graph = json.loads(crate.read_bytes())["@graph"]
    entities = {entity["@id"]: entity for entity in graph}
    told = story.tell(study, set(manifest["files"]), images={})
    said: dict[str, dict[str, Any]] = {}
    for identifier, fields in (
        *_expected(study, readme.state(study, manifest["missing"]), data),
        *deeds.expected(study, told, manifest, entities),
    ):
        # Of two datasets of one name the last is told of, as in the description.
        said.setdefault(identifier, {}).update(fields)
    wrong = [
        f"{identifier}: its {key} is not what config and records make it"
        for identifier, fields in said.items()
        for key, value in fields.items()
        if _plain(entities.get(identifier, {}).get(key)) != _plain(value)
    ]
    wrong += deeds.dates(told, entities)
    paths = sorted((data / "images").glob("*/manifest.json"))
    images = [image(json.loads(p.read_bytes()), p.parent.name) for p in paths]
    wrong += [
        f"{identifier}: is not what data/images says"
        for identifier, entity in entities.items()
        if "ContainerImage" in several(entity.get("@type"))
        and not any(fields.items() <= entity.items() for fields in images)
    ]
    return Check(
        name="described",
        says="people, licences, datasets, images, jobs and runs, as config and records say",
        wrong=[f"{layout.CRATE}: {problem}" for problem in wrong],
    )


def _expected(study: Study, state: str, data: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what must be said, each with the identifier of what it is said of."""
    people_and_licence: dict[str, dict[str, Any]] = {}

    def add(identifier: str, kind: str, /, **properties: Any) -> dict[str, str]:
        people_and_licence[identifier] = {"@type": kind, **properties}
        return {"@id": identifier}

    yield "./", root(add, people.about(study), state)
    yield from people_and_licence.items()
    for path in sorted((data / "datasets").glob("*/manifest.json")):
        told = json.loads(path.read_bytes())
        yield f"{layout.DATA}datasets/{path.parent.name}/", dataset(told)
    yield from of_weights(study)


def _plain(value: Any) -> Any:
    """Return a value as a description has it: one is no list, and none is not there."""
    if isinstance(value, list) and len(value) < 2:
        return value[0] if value else None
    return value
