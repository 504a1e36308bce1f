"""Whether all is there: what a study's config asks for, and what its own records promise."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lockstep.archive import layout, settings, written
from lockstep.archive.findings import Check, guarded
from lockstep.report.soundness import FINISHED
from lockstep.study import Study


def read(path: Path) -> Any:
    """Return a file's JSON; None if it is not there or is none."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def missing(study: Study, names: Iterable[str]) -> list[str]:
    """Return what a complete archive of a study has and one with these names has not.

    What is in the study's folder is called as it is there.
    """
    there = set(names)
    below = f"{layout.RESULTS}{study.name}/"
    wanted = (
        *(below + name for name in _records(study)),
        *_options(study, there),
        *_described(study, there),
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


def folders(study: Study) -> set[tuple[str, str, str]]:
    """Return what config and records name of data: `datasets` or `images`, name and the beginning
    of the identity, which is empty where the config names it.
    """
    wanted = {("datasets", study.workload(w)["dataset"], "") for w in study.config["workloads"]}
    if study.config["images"]["enabled"]:
        frameworks = {v["framework"] for v in study.config["variants"].values()}
        wanted |= {("images", name, "") for name in ("base", *frameworks)}
    for run in study.runs:
        summary = read(study.run_folder(run) / "summary.json")
        try:
            dataset, image = summary["dataset"], summary["contract"]["host"].get("image")
            wanted.add(("datasets", str(dataset["name"]), str(dataset["identity"])[:12]))
            if image:
                wanted.add(("images", str(image["name"]), str(image["identity"])[:12]))
        except (KeyError, TypeError, AttributeError):
            continue  # what it is instead is said elsewhere
    return wanted


def called(name: str, identity: str = "") -> str:
    """Return a pattern of what the folder of a dataset or an image is called."""
    return f"{re.escape(name)}(-cuda\\d+|-ready)?-{re.escape(identity) or '[0-9a-f]{12}'}"


def _described(study: Study, there: set[str]) -> Iterator[str]:
    """Yield the manifests of datasets and images that config and records name, and are not there.

    Of those that no record names yet only a part of the folder's name is known.
    """
    wanted = folders(study)
    told = {(kind, name) for kind, name, identity in wanted if identity}
    for kind, name, identity in sorted(wanted):
        if not identity and (kind, name) in told:
            continue
        path = re.compile(f"{layout.DATA}{kind}/{called(name, identity)}/manifest.json")
        if not any(map(path.fullmatch, there)):
            yield f"{layout.DATA}{kind}/{name}-{identity or '*'}/manifest.json"


def _options(study: Study, there: set[str]) -> Iterator[str]:
    """Yield what is there only where the config includes it."""
    wanted, below = settings.include(study), f"{layout.RESULTS}{study.name}/"
    if wanted["traces"]:
        for workload in study.config["workloads"]:
            yield from (f"{below}parity/{workload}/{variant}.npz" for variant in study.traces())
    if wanted["checkpoints"]:
        for workload in study.config["workloads"]:
            seeds = study.config["seeds"]
            yield from (f"{below}weights/{workload}/seed-{seed}.safetensors" for seed in seeds)
        yield from (f"{below}runs/{run.name}/{layout.FINAL}" for run in study.runs
                    if _finished(study.run_folder(run)))  # fmt: skip
    for path in sorted(name for name in there if name.startswith(layout.DATA)):
        folder, _, name = path.rpartition("/")
        if name == "manifest.json" and path.startswith(f"{layout.DATA}datasets/"):
            found = read(study.data / path.removeprefix(layout.DATA)) if wanted["data"] else None
            yield from (f"{folder}/{shard}" for shard in shards(found))
        elif name == "manifest.json" and wanted["images"]:
            yield f"{folder}/image.sif"


def _finished(folder: Path) -> bool:
    summary = read(folder / "summary.json")
    return isinstance(summary, dict) and summary.get("status") == FINISHED


def shards(told: Any) -> dict[str, str]:
    """Return the files that a dataset's manifest names, with their sha256; none if it is none."""
    try:
        splits = told["splits"].values()
        return {shard["file"]: shard["sha256"] for split in splits for shard in split["shards"]}
    except (KeyError, TypeError, AttributeError):
        return {}


def whole(study: Study, manifest: Mapping[str, Any], again: Path, package: Path) -> Check:
    """Is all there that the config asks for, and nothing else, as the manifest says?

    Args:
        again: the config to run the study again with, which must be the study's own.
        package: the archived code, which states its version.
    """
    listed = manifest["files"]
    lacking, told = missing(study, listed), manifest["missing"]
    wrong = [f"{name}: of no kind that an archive holds" for name in listed
             if not layout.known(name, study.name)]  # fmt: skip
    wrong += [f"{name}: Python would run it in place of the code that is compared"
              for name, line in listed.items()
              if layout.shadows(name, link=bool(line.get("link")))]  # fmt: skip
    wrong += [f"{name}: is missing, which the manifest does not say"
              for name in lacking if name not in set(told)]  # fmt: skip
    wrong += [f"{name}: is said to be missing, but is there"
              for name in told if name not in set(lacking)]  # fmt: skip
    wrong += [f"{name}: is missing, which archiving itself makes"
              for name in layout.MADE_LAST if name not in {*listed, layout.MANIFEST}]  # fmt: skip
    if manifest["complete"] != (not lacking):
        wrong.append("manifest.json: whether the study is complete is not what its files say")
    if manifest["include"] != settings.include(study):
        wrong.append("manifest.json: what is included is not what the config says")
    if read(again) != settings.reproducible(study.config):
        wrong.append(f"{layout.STUDY}: is not the config of the study as it was run")
    # An archive of uncommitted changes must not pass for one of a commit.
    if (f"({layout.DIFFERENCE})" in manifest["source"]["note"]) != (layout.DIFFERENCE in listed):
        wrong.append(f"manifest.json: its note on the source does not fit {layout.DIFFERENCE}")
    wrong += guarded(layout.MANIFEST, written.version(manifest, package))
    said = (
        f"all {len(study.runs)} runs"
        if not lacking
        else f"the study is NOT COMPLETE, and says so: {len(lacking)} files are missing"
    )
    return Check(name="whole", says=said, wrong=wrong)
