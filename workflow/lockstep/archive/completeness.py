"""Which files a complete archive of a study has, and which nothing in it names."""

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

from lockstep.archive import layout
from lockstep.archive.archived_study import include
from lockstep.report.record_validation import FINISHED
from lockstep.study import Study

Read = Callable[[str], Any]
"""Returns the JSON of an archived file by its name; None if it is missing or is not JSON."""


def missing(study: Study, names: Collection[str], read: Read) -> list[str]:
    """Return what a complete archive of a study has and one with these names has not.

    Args:
        study: whose paths are names in the archive (see `archived_study`).
        names: what the archive holds.

    Returns:
        Sorted; what is in the study's folder is called as it is there.
    """
    there, below = {*names}, f"{layout.RESULTS}{study.name}/"
    wanted = (
        *(below + name for name in _records(study)),
        *_options(study, there, read),
        *_manifests(study, there, read),
    )
    return sorted(name.removeprefix(below) for name in wanted if name not in there)


def _records(study: Study) -> Iterator[str]:
    """Yield the files of a study's folder that every archive has, besides logs and figures.

    A failed run has its records too: they say why.
    """
    yield "study.json"
    for workload in study.config["workloads"]:
        yield from (f"parity/{workload}/{name}" for name in ("verdict.json", "passed.json"))
    yield from (f"blocks/{block}.json" for block in study.blocks)
    for run in study.runs:
        yield from (f"runs/{run.name}/{name}" for name in (*layout.RECORDS, "run.json"))
    yield from (f"report/{name}" for name in ("index.html", "report.json", "complete.json"))


def _options(study: Study, there: set[str], read: Read) -> Iterator[str]:
    """Yield what is there only where the config includes it."""
    wanted, workloads = include(study.config), study.config["workloads"]
    if wanted["traces"]:
        for workload in workloads:
            yield from (str(study.trace(workload, variant)) for variant in study.traces())
    if wanted["checkpoints"]:
        for workload in workloads:
            yield from (str(study.weights(workload, seed)) for seed in study.config["seeds"])
        for run in study.runs:
            summary = read(f"{study.run_folder(run)}/summary.json")
            if isinstance(summary, dict) and summary.get("status") == FINISHED:
                yield f"{study.run_folder(run)}/{layout.FINAL}"
    for name in sorted(there):
        folder, _, file = name.rpartition("/")
        if file == "manifest.json" and name.startswith(f"{layout.DATA}datasets/"):
            manifest = read(name) if wanted["data"] else None
            yield from (f"{folder}/{shard}" for shard in shards(manifest))
        elif file == "manifest.json" and name.startswith(layout.DATA) and wanted["images"]:
            yield f"{folder}/image.sif"


def shards(manifest: Any) -> dict[str, str]:
    """Return the files that a dataset's manifest names, with their sha256; none if it is none."""
    try:
        splits = manifest["splits"].values()
        return {shard["file"]: shard["sha256"] for split in splits for shard in split["shards"]}
    except (KeyError, TypeError, AttributeError):
        return {}


def data_folders(study: Study, read: Read) -> set[tuple[str, str, str]]:
    """Return what config and records name of data: `datasets` or `images`, name, and the beginning
    of the identity, which is empty where the config names it.
    """
    wanted = {("datasets", study.workload(w)["dataset"], "") for w in study.config["workloads"]}
    if study.config["images"]["enabled"]:
        frameworks = {v["framework"] for v in study.config["variants"].values()}
        wanted |= {("images", name, "") for name in ("base", *frameworks)}
    for run in study.runs:
        summary = read(f"{study.run_folder(run)}/summary.json")
        try:
            dataset, image = summary["dataset"], summary["contract"]["host"].get("image")
            wanted.add(("datasets", str(dataset["name"]), str(dataset["identity"])[:12]))
            if image:
                wanted.add(("images", str(image["name"]), str(image["identity"])[:12]))
        except (KeyError, TypeError, AttributeError):
            continue  # the validator of records says what it is instead
    return wanted


def folder_pattern(kind: str, name: str, identity: str = "") -> str:
    """Return a pattern of what the folder of a dataset or an image is called."""
    digits = re.escape(identity) or "[0-9a-f]{12}"
    return f"{layout.DATA}{kind}/{re.escape(name)}(-cuda\\d+|-ready)?-{digits}"


def _manifests(study: Study, there: set[str], read: Read) -> Iterator[str]:
    """Yield the manifests of datasets and images that config and records name, and are missing.

    Of those that no record names yet only a part of the folder's name is known.
    """
    wanted = data_folders(study, read)
    recorded = {(kind, name) for kind, name, identity in wanted if identity}
    for kind, name, identity in sorted(wanted):
        if not identity and (kind, name) in recorded:
            continue
        pattern = re.compile(folder_pattern(kind, name, identity) + "/manifest.json")
        if not any(map(pattern.fullmatch, there)):
            yield f"{layout.DATA}{kind}/{name}-{identity or '*'}/manifest.json"


def unexpected(study: Study, names: Collection[str], read: Read) -> Iterator[str]:
    """Yield what is in an archive although neither config, records nor manifests name it."""
    below, known = f"{layout.RESULTS}{study.name}/", layout.named(study)
    runs = tuple(f"runs/{run.name}/" for run in study.runs)
    folders = [folder_pattern(k, name) for k, name, _ in data_folders(study, read)]
    data = re.compile(f"({'|'.join(folders)})/(manifest\\.json|[^/]+\\.h5|image\\.sif)")
    fixed = {*layout.DERIVED, layout.HASHES, layout.STUDY}
    for name in names:
        inner = name.removeprefix(below) if name.startswith(below) else None
        if name.startswith(layout.SOURCE) or name in fixed:
            continue
        if name.startswith(layout.DATA):
            folder = name.rpartition("/")[0]
            if not data.fullmatch(name):
                yield f"{name}: neither the config nor a record names it"
            elif f"{folder}/manifest.json" not in names:
                yield f"{name}: there is no manifest that describes it"
        elif inner is None or layout.part(inner) is None:
            yield f"{name}: not a kind of file that an archive holds"
        elif inner.startswith("runs/") and not inner.startswith(runs):
            yield f"{name}: the study's config does not ask for this run"
        elif inner.startswith(layout.NAMED_BY_CONFIG) and inner not in known:
            yield f"{name}: the study's config does not ask for it"
