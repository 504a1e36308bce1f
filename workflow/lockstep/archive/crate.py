"""The archive described as a Provenance Run Crate, with the public library.

Profiles: https://w3id.org/ro/wfrun/provenance/0.5 and what it builds on. Equal studies give equal
bytes: nothing here reads a clock, and the library's own time of making is replaced.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from rocrate.model.entity import Entity
from rocrate.rocrate import ROCrate

from lockstep import __version__
from lockstep.archive import actions, deeds, layout, manifest, people, statements
from lockstep.archive.deeds import WORKFLOW
from lockstep.archive.making import Making
from lockstep.archive.story import Story
from lockstep.study import Study

PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/provenance/0.5": ("Provenance Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
BIOSCHEMAS = "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"


def describe(
    study: Study,
    about: people.About,
    told: Story,
    entries: Mapping[str, Mapping[str, Any]],
    commit: str | None,
    note: str,
) -> bytes:
    """Return ``ro-crate-metadata.json``.

    Args:
        about: what the archive says of itself.
        told: what happened.
        entries: size and hash of every file in the archive but this one and the manifest.
        commit: of the source.
        note: what a reader must know first: whether runs are missing.
    """
    making = Making(
        crate=ROCrate(version="1.1"),
        study=study,
        trees=manifest.Trees(entries),
        story=told,
        about=about,
    )
    _root(making, note)
    _data(making)
    workflow = _workflow(making, commit)
    actions.add(making, workflow)
    making.crate.metadata.extra_contexts.append(TERMS)
    generated = making.crate.metadata.generate()
    graph = [_compact(entity) for entity in generated["@graph"]]
    generated["@graph"] = sorted(graph, key=lambda entity: str(entity["@id"]))
    return json.dumps(generated, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _compact(entity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entity as RO-Crate wants it: one value is no list, and none is not there."""
    found = {}
    for key, value in entity.items():
        if isinstance(value, list) and len(value) < 2:
            if not value:
                continue
            value = value[0]
        found[key] = value
    return found


def _root(making: Making, note: str) -> None:
    crate, about = making.crate, making.about
    root = crate.root_dataset
    crate.metadata["conformsTo"] = [
        {"@id": "https://w3id.org/ro/crate/1.1"},
        {"@id": "https://w3id.org/workflowhub/workflow-ro-crate/1.0"},
    ]
    root["conformsTo"] = [
        making.add(identifier, "CreativeWork", name=name, version=version)
        for identifier, (name, version) in PROFILES.items()
    ]
    root["datePublished"] = making.story.ended[:10]
    for key, value in statements.root(making.add, about, note).items():
        root[key] = value


def _data(making: Making) -> None:
    top = f"{layout.RESULTS}{making.study.name}/"
    making.file(layout.README, name="What this is and how to check it", about={"@id": "./"})
    making.file(layout.MANIFEST, name="Size and hash of every file")
    making.file(layout.UPLOAD, name="Metadata for a data repository's upload")
    making.file(layout.CITATION, name="How to cite this archive")
    making.file(layout.STUDY, name="The study's complete config, to run it again")
    for name, says in (
        (layout.DIFFERENCE, "What was changed in the source since its commit"),
        (f"{top}study.json", "The study's complete config, as it was run"),
        (f"{top}report/index.html", "The report"),
        (f"{top}report/report.json", "All numbers and verdicts of the report"),
    ):
        if making.has(name):
            making.file(name, name=says)
    making.folder(layout.SOURCE, name="Workflow and package", version=__version__)
    if making.has(f"{layout.SOURCE}containers/"):
        making.folder(f"{layout.SOURCE}containers/", name="Definitions and locks of images")
    for part, says in (
        ("weights", "Initial weights"),
        ("runs", "Records of all runs"),
        ("blocks", "Which runs were made together, with their records' hashes"),
        ("report", "Report, tables and figures"),
        ("logs", "Logs, and what each job ran on"),
    ):
        if making.has(f"{top}{part}/"):
            making.folder(f"{top}{part}/", name=says)
    for workload in making.study.config["workloads"]:
        parity = f"{top}parity/{workload}/"
        if making.has(parity):
            making.folder(parity, name=f"Parity of {workload}: traces and verdict")
        if making.has(f"{parity}verdict.json"):
            making.file(f"{parity}verdict.json", name=f"Verdict on parity of {workload}")
    for folder in _below(making.entries, f"{layout.DATA}datasets/"):
        _dataset(making, folder)
    for folder in _below(making.entries, f"{layout.DATA}images/"):
        making.folder(folder, name=f"Image {folder.split('/')[-2]}")
    for identifier, (name, value) in sorted(making.story.values.items()):
        making.add(identifier, "PropertyValue", name=name, value=value)


def _dataset(making: Making, folder: str) -> None:
    path = making.study.data / folder.removeprefix(layout.DATA) / "manifest.json"
    making.folder(folder, **statements.dataset(json.loads(path.read_bytes())))


def _below(entries: Iterable[str], top: str) -> list[str]:
    return sorted({"/".join(n.split("/")[:3]) + "/" for n in entries if n.startswith(top)})


def _workflow(making: Making, commit: str | None) -> Entity:
    crate = making.crate
    workflow = crate.add_workflow(
        dest_path=WORKFLOW,
        main=True,
        lang="snakemake",
        lang_version=making.story.snakemake,
        properties={
            "encodingFormat": "text/plain",
            **deeds.workflow(commit, __version__),
            "conformsTo": {"@id": BIOSCHEMAS},
            "sha256": making.entries[WORKFLOW]["sha256"],
            "contentSize": str(making.entries[WORKFLOW]["bytes"]),
        },
    )
    workflow._jsonld["@type"].append("HowTo")
    making.add(BIOSCHEMAS, "CreativeWork", name="ComputationalWorkflow", version="1.0-RELEASE")
    config = _parameter(making, "study", "File", layout.STUDY)
    workflow["input"] = [config]
    top = f"{layout.RESULTS}{making.study.name}/"
    outputs = []
    for name, kind, example in (
        ("report", "File", f"{top}report/index.html"),
        ("records", "Dataset", f"{top}runs/"),
    ):
        if making.has(example):
            outputs.append(_parameter(making, name, kind, example))
    workflow["output"] = outputs
    return workflow


def _parameter(making: Making, name: str, kind: str, example: str) -> Entity:
    parameter = making.add(
        f"#parameter-{name}",
        "FormalParameter",
        name=name,
        additionalType=kind,
        workExample={"@id": example},
    )
    making.crate.get(example)["exampleOfWork"] = parameter
    return parameter
