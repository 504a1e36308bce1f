"""What an archive holds and what its files are called: the one place that knows."""

import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lockstep.study import Study

SCHEMA = "lockstep-archive/2"
HASHES = "manifest-sha256.txt"
ABOUT = "archive.json"
CRATE = "ro-crate-metadata.json"
README = "README.md"
UPLOAD = "metadata.json"
CITATION = "CITATION.cff"
STUDY = "study/study.json"
SOURCE = "source/"
PACKAGE = f"{SOURCE}workflow/lockstep/"
RESULTS = "results/"
DATA = "data/"

DERIVED = (README, UPLOAD, CITATION, ABOUT, CRATE)
"""Made by archiving itself, in this order; then `HASHES`, which lists all others."""

RECORDS = ("summary.json", "epochs.csv", "windows.csv", "steps.npz")
"""What a run must have to be finished, besides its final state."""
FINAL = "final.safetensors"

LARGEST_LIST, LARGEST_RECORD, LARGEST_TABLE = 16 << 20, 4 << 20, 64 << 20
"""In bytes: `HASHES` and the description; a record of a run, block or job; other JSON or CSV."""

FURTHER = re.compile(
    r"report/tables/[^/.][^/]*\.csv|report/figures/[^/.][^/]*\.(svg|png)|logs/(?!archive\.log).+\.(log|json)"
)
"""What of a study's folder is archived besides `study_files`. Anything else never is: TensorBoard's
and W&B's files repeat the tables, and name machines, folders and variables.
"""

INCLUDE = {
    "images": False, "data": False, "checkpoints": False, "artefacts": False, "traces": True,
    "untracked": False,
}  # fmt: skip
"""For a config that is older than one of these keys."""

Read = Callable[[str], Any]
"""Returns the JSON of an archived file by its name; None if it is missing or is not JSON."""


def parsed(content: bytes) -> Any:
    """Return the value that a file's JSON stands for; None if it is not JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


# The config -----------------------------------------------------------------------------------


def include(section: Mapping[str, Any]) -> dict[str, bool]:
    """Return what a config says of an archive's optional parts."""
    return {**INCLUDE, **section.get("archive", {}).get("include", {})}


def reproducible(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config that runs on another machine: without places that only this one has."""
    changed: dict[str, Any] = json.loads(json.dumps(section))
    changed["paths"] = {"results": "results", "data": "data"}
    for entry in changed["datasets"].values():
        entry["raw"] = None
    for entry in changed["workloads"].values():  # that it starts from a file is part of the study
        entry |= {"start": Path(entry["start"]).name} if entry.get("start") else {}
    machine = ("cache", "build_folder", "ca_bundle", "package_index", "debian_mirror")
    changed["images"].update(dict.fromkeys(machine))
    changed["images"]["ready"] = dict.fromkeys(changed["images"]["ready"])
    return changed


def named_as_archived(section: Mapping[str, Any]) -> Study:
    """Return a study whose paths are the names of its files in an archive."""
    return Study(reproducible(section))


# Which files ----------------------------------------------------------------------------------


def study_files(study: Study, *, optional: bool = False) -> dict[str, str]:
    """Return the files of a complete study's folder, by their paths there.

    Args:
        optional: also those that need not be there.

    Returns:
        The part of `archive.include` that asks for each; an empty text for what always is archived.
    """
    found = {study.root / "study.json": ""}
    for workload in study.config["workloads"]:
        found |= dict.fromkeys((study.verdict(workload), study.passed(workload)), "")
        found |= {study.trace(workload, variant): "traces" for variant in study.traces()}
        found |= {study.weights(workload, seed): "checkpoints" for seed in study.config["seeds"]}
    found |= dict.fromkeys(map(study.manifest, study.blocks), "")
    more = ("failure.json", "log.txt") if optional else ()
    for run in study.runs:
        folder = study.run_folder(run)
        found |= {folder / name: "" for name in (*RECORDS, "run.json", *more)}
        found[folder / FINAL] = "checkpoints"
    found |= {study.deployment(workload): "" for workload in study.deployed}
    report = study.report().parent
    found |= {report / name: "" for name in ("index.html", "report.json", "complete.json")}
    found |= {study.repetitions: ""} if optional else {}
    return {path.relative_to(study.root).as_posix(): part for path, part in found.items()}


def artefacts(study: Study, read: Read) -> dict[str, str]:
    """Return the exported models that the records of `deploy` name, with their sha256.

    Args:
        study: whose paths are names in the archive, or on this machine.
        read: returns the JSON of one of its files.
    """
    found = {}
    for workload in study.deployed:
        record = study.deployment(workload)
        try:
            for row in read(str(record))["routes"]:
                folder = record.parent / "artefacts" / row["framework"] / row["route"]
                for name, told in row.get("artefact", {}).get("files", {}).items():
                    found[str(folder / name)] = str(told["sha256"])
        except (KeyError, TypeError, AttributeError):
            continue  # the report says what is wrong with the record
    return found


def missing(study: Study, names: Collection[str], read: Read) -> list[str]:
    """Return what a complete archive of a study has and one with these names has not.

    Args:
        study: whose paths are names in the archive (see `named_as_archived`).
        names: what the archive holds.
        read: returns the JSON of an archived file.

    Returns:
        Sorted; what is in the study's folder is called as it is there.
    """
    there, wanted = {*names}, {"": True, **include(study.config)}
    asked = {path for path, part in study_files(study).items() if wanted[part]}
    for run in study.runs:  # a failed run has its records too, which say why, but no final state
        summary = read(f"{study.run_folder(run)}/summary.json")
        if not isinstance(summary, dict) or summary.get("status") != "finished":
            asked.discard(f"runs/{run.name}/{FINAL}")
    asked = {f"{study.root}/{path}" for path in asked} | {*_data(study, there, read)}
    if wanted["artefacts"]:
        asked |= {*artefacts(study, read)}
    return sorted(name.removeprefix(f"{study.root}/") for name in asked - there)


def _data(study: Study, there: set[str], read: Read) -> Iterator[str]:
    """Yield the manifests of datasets and images that config and records name, and what else of
    them is asked for. Of those that no record names yet only a part of the folder's name is known.
    """
    wanted, held = include(study.config), manifests(there, read)
    identities = {str(told["identity"])[:12] for told in held.values()}
    described = {(folder.split("/")[1], told["name"]) for folder, told in held.items()}
    for (kind, name), recorded in sorted(data_named(study, read).items()):
        missing = sorted(recorded - identities)
        if not recorded and (kind, name) not in described:
            missing = ["*"]
        yield from (f"{DATA}{kind}/{name}-{identity}/manifest.json" for identity in missing)
    for folder, told in held.items():
        part, files = contents(folder, told)
        yield from (f"{folder}/{file}" for file in files if wanted[part])


def manifests(names: Iterable[str], read: Read) -> dict[str, Any]:
    """Return the manifests of archived datasets and images, by their folders."""
    found = {}
    for name in sorted(names):
        if name.startswith(DATA) and name.endswith("/manifest.json"):
            told = read(name)
            if isinstance(told, dict) and {"name", "identity"} <= told.keys():
                found[name.removesuffix("/manifest.json")] = told
    return found


def data_named(study: Study, read: Read) -> dict[tuple[str, str], set[str]]:
    """Return the datasets and images that config and records name, by `datasets` or `images` and
    name: the beginnings of the identities that records have of them (see `artefacts`).
    """
    named: dict[tuple[str, str], set[str]] = {}
    for workload in study.config["workloads"]:
        named["datasets", study.workload(workload)["dataset"]] = set()
    if study.config["images"]["enabled"]:
        frameworks = {v["framework"] for v in study.config["variants"].values()}
        named |= {("images", name): set() for name in ("base", *frameworks)}
    for run in study.runs:
        summary = read(f"{study.run_folder(run)}/summary.json")
        try:
            dataset, image = summary["dataset"], summary["contract"]["host"].get("image")
            for kind, one in (("datasets", dataset), ("images", image)):
                if one:
                    identity = str(one["identity"])[:12]
                    named.setdefault((kind, str(one["name"])), set()).add(identity)
        except (KeyError, TypeError, AttributeError):
            continue  # the validator of records says what it is instead
    return named


def contents(folder: str, manifest: Any) -> tuple[str, dict[str, str]]:
    """Return the part of `archive.include` that asks for what a manifest in a folder of data
    describes, and these files with their sha256; none if it is no manifest.
    """
    part = "images" if Path(folder).parent.name == "images" else "data"
    try:
        if part == "images":
            return part, {"image.sif": manifest["sif"]["sha256"]}
        shards = [shard for split in manifest["splits"].values() for shard in split["shards"]]
        return part, {shard["file"]: shard["sha256"] for shard in shards}
    except (KeyError, TypeError, AttributeError):
        return part, {}


# Sizes and safe names -----------------------------------------------------------------------------


def too_large(name: str, size: int) -> str | None:
    """Return why a file is larger than verifying reads at once, None if it is not."""
    if name in (HASHES, CRATE, ABOUT):
        limit = LARGEST_LIST
    elif not name.endswith((".json", ".csv")) or name.startswith(SOURCE):
        return None
    else:
        record = re.match(r"results/[^/]+/(runs|blocks|logs|parity|deploy)/", name)
        limit = LARGEST_RECORD if record else LARGEST_TABLE
    if size <= limit:
        return None
    return f"has {size / (1 << 20):.1f} MiB, more than the {limit >> 20} MiB that are read"


def unsafe(names: Iterable[str]) -> str | None:
    """Return what is wrong with the first name that could leave its folder, or with the first two
    that could meet in one file; None if no name can.
    """
    files: dict[str, str] = {}
    folders: set[str] = set()
    for name in names:
        if any(unicodedata.category(c) in ("Cc", "Cs") for c in name) or "\\" in name:
            return f"a file called {name[:300]!r}, which has characters that no name should have"
        if {"", ".", ".."} & {*name.split("/")} or name[1:2] == ":":
            return f"a file called {name[:300]!r}, which leads out of its folder or to a folder"
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
        if folded in files:
            return f"{files[folded]!r} and {name!r}, which are one file where case does not count"
        files[folded] = name
        parts = folded.split("/")
        folders |= {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    for folded in sorted(files.keys() & folders):
        return f"the file {files[folded]!r}, which is also a folder"
    return None
