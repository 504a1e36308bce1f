"""Whether the records of an archive agree with each other: configs, blocks, runs, data, images."""

import hashlib
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import code, files
from lockstep.archive import gather, layout
from lockstep.archive.findings import Check
from lockstep.datasets import checksum
from lockstep.study import Study, framework_modules
from lockstep.study.run import Run

UNFOLDED = 64  # times its own size that an array file may take in memory

Listed = Mapping[str, Mapping[str, Any]]


def read(path: Path) -> Any:
    """Return a file's JSON; None if it is not there or is none."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def whole(study: Study, manifest: Mapping[str, Any], again: Path) -> Check:
    """Is all there that the config asks for, and nothing else, as the manifest says?

    Args:
        again: the config to run the study again with, which must be the study's own.
    """
    listed = manifest["files"]
    missing = gather.missing(study.config, listed)
    lacking, told = set(missing), set(manifest["missing"])
    wrong = [f"{name}: of no kind that an archive holds" for name in listed
             if not layout.known(name, study.name)]  # fmt: skip
    wrong += [f"{name}: is missing, which the manifest does not say" for name in missing
              if name not in told]  # fmt: skip
    wrong += [f"{name}: is said to be missing, but is there" for name in manifest["missing"]
              if name not in lacking]  # fmt: skip
    if manifest["complete"] != (not missing):
        wrong.append("manifest.json: whether the study is complete is not what its files say")
    if read(again) != gather.reproducible(study.config):
        wrong.append(f"{layout.STUDY}: is not the config of the study as it was run")
    known = {study.run_folder(run).relative_to(study.root).as_posix() for run in study.runs}
    below = f"{layout.RESULTS}{study.name}/"
    for name in listed:
        parts = name.removeprefix(below).split("/")
        if parts[0] == "runs" and name.startswith(below) and "/".join(parts[:5]) not in known:
            wrong.append(f"{name}: the study's config does not ask for this run")
    for name in _expected_traces(study) if manifest.get("include", {}).get("traces") else ():
        if below + name not in listed and not missing:
            wrong.append(f"{name}: is missing, though traces are included")
    said = (
        f"all {len(study.runs)} runs"
        if not missing
        else f"the study is NOT COMPLETE, and says so: {len(missing)} files are missing"
    )
    return Check(name="whole", says=said, wrong=wrong)


def _expected_traces(study: Study) -> Iterator[str]:
    for workload in study.config["workloads"]:
        for variant in study.traces():
            yield study.trace(workload, variant).relative_to(study.root).as_posix()


def unreadable(study: Study) -> list[str]:
    """Return the JSON files of a study's folder that are none."""
    paths = sorted(study.root.rglob("*.json"))
    return [p.relative_to(study.root).as_posix() for p in paths if read(p) is None]


def records(study: Study, listed: Listed, data: Path) -> Check:
    """Do blocks, runs, datasets, weights and images say the same of each other?"""
    wrong = [f"{name}: is not JSON, or is cut short" for name in unreadable(study)]
    finished = 0
    blocks = {name: read(study.manifest(name)) for name in study.blocks}
    datasets = {m["identity"]: m for m in _manifests(data / "datasets") if "identity" in m}
    images = {m["identity"]: m for m in _manifests(data / "images") if "identity" in m}
    for name, block in study.blocks.items():
        found = blocks[name]
        if found is None:
            continue
        lines = found.get("runs") if isinstance(found, dict) else None
        if not isinstance(lines, dict) or set(lines) != {run.name for run in block.runs}:
            wrong.append(f"blocks/{name}.json: does not list the runs of this block")
            continue
        for run in block.runs:
            wrong += _block_line(study, run, lines[run.name], listed)
    for run in study.runs:
        summary = read(study.run_folder(run) / "summary.json")
        if summary is None:
            continue
        finished += 1
        try:
            wrong += [f"runs/{run.name}: {w}" for w in _run(study, run, summary, datasets, images)]
        except (KeyError, TypeError, ValueError, AttributeError, OSError) as problem:
            wrong.append(f"runs/{run.name}/summary.json: not a sound record ({problem!r})")
    said = f"{finished} runs agree with their blocks, datasets, weights and images"
    return Check(name="records", says=said, wrong=wrong)


def _manifests(folder: Path) -> list[dict[str, Any]]:
    found = [read(path) for path in sorted(folder.glob("*/manifest.json"))]
    return [manifest for manifest in found if isinstance(manifest, dict)]


def _block_line(study: Study, run: Run, line: Mapping[str, Any], listed: Listed) -> Iterator[str]:
    below = f"{layout.RESULTS}{study.name}/runs/{run.name}/"
    for name, sha256 in line.get("sha256", {}).items():
        entry = listed.get(below + name)
        if entry is not None and entry["sha256"] != sha256:
            yield f"runs/{run.name}/{name}: is not what its block has the hash of"
    summary = read(study.run_folder(run) / "summary.json")
    if isinstance(summary, dict):
        for field in ("identity", "status"):
            if summary.get(field) != line.get(field):
                yield f"runs/{run.name}/summary.json: {field} is not what its block says"


def _run(
    study: Study,
    run: Run,
    summary: Mapping[str, Any],
    datasets: Mapping[str, Any],
    images: Mapping[str, Any],
) -> Iterator[str]:
    contract = summary["contract"]
    determined = contract["determined_by"]
    if files.digest(determined) != summary["identity"]:
        yield "its identity is not the hash of what it says that determined it"
    trains = {k: determined[k] for k in ("recipe", "precision", "dataset", "weights", "seed")}
    if files.digest(trains) != summary["trajectory"]:
        yield "its trajectory is not the hash of what was trained"
    if determined["settings"] != study.run_config(run):
        yield "its settings are not those of the study's config"
    if determined["dataset"] != summary["dataset"]["content"]:
        yield "its identity was made with another dataset than its record names"
    dataset = datasets.get(summary["dataset"]["identity"])
    if dataset is None:
        yield f"the archive does not describe its dataset {summary['dataset']['name']}"
    else:
        for field in ("name", "source", "content", "licence"):
            if dataset[field] != summary["dataset"][field]:
                yield f"its dataset's {field} is not what data/datasets says"
    image = contract["host"].get("image")
    if image is not None:
        known = images.get(image["identity"])
        if known is None:
            yield f"the archive does not describe its image {image['name']}"
        elif known["sif"]["sha256"] != image["sif_sha256"]:
            yield "its image's sha256 is not what data/images says"
        if determined["environment"] != {"image": image["identity"]}:
            yield "its identity was made with another image than its record names"
    yield from _steps(study, run, summary)
    told = read(study.run_folder(run) / "run.json")
    if told is not None and told.get("identity") != summary["identity"]:
        yield "run.json tells of another run"


def _steps(study: Study, run: Run, summary: Mapping[str, Any]) -> Iterator[str]:
    path = study.run_folder(run) / "steps.npz"
    if not path.is_file():
        return
    problem = unsafe(path)
    if problem:
        yield f"steps.npz: {problem}"
        return
    try:
        with np.load(path, allow_pickle=False) as stored:
            loss, sums = stored["loss"], stored["checksum"]
    except Exception as error:  # a damaged file raises almost anything
        yield f"steps.npz: not readable ({error})"
        return
    if len(loss) != summary["steps"]:
        yield f"steps.npz: holds {len(loss)} steps instead of {summary['steps']}"
    if checksum.chain(sums) != summary["batches"]:
        yield "steps.npz: its batches are not those of the summary"


def unsafe(path: Path) -> str | None:
    """Return why an array file must not be loaded, None if it may be."""
    try:
        with zipfile.ZipFile(path) as arrays:
            size = sum(info.file_size for info in arrays.infolist())
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        return f"not readable ({error})"
    if size > UNFOLDED * path.stat().st_size + (1 << 20):
        return f"would unfold to {size} bytes; not touched"
    return None


def same_data(study: Study, listed: Listed, data: Path) -> Check:
    """Are archived shards and images those that their manifests have the hashes of?"""
    wrong, counted = [], 0
    for kind in ("datasets", "images"):
        for path in sorted((data / kind).glob("*/manifest.json")):
            told = read(path) or {}
            below = f"{layout.DATA}{kind}/{path.parent.name}/"
            if kind == "datasets":
                splits = told.get("splits", {}).values()
                known = {s["file"]: s["sha256"] for split in splits for s in split["shards"]}
            else:
                known = {"image.sif": told.get("sif", {}).get("sha256")}
            if not path.parent.name.endswith(str(told.get("identity"))[:12]):
                wrong.append(f"{below}manifest.json: its identity is not that of its folder")
            others = {n.removeprefix(below) for n in listed if n.startswith(below)} - {*known}
            wrong += [f"{below}{n}: its manifest does not name it" for n in sorted(others)
                      if n != "manifest.json"]  # fmt: skip
            for name, sha256 in known.items():
                if below + name in listed:
                    counted += 1
                    if listed[below + name]["sha256"] != sha256:
                        wrong.append(f"{below}{name}: is not what its manifest has the hash of")
    said = f"{counted} shards and images are those of their manifests"
    return Check(name="data", says=said if counted else "described; not included", wrong=wrong)


def source(study: Study, package: Path) -> Check:
    """Is the archived source what trained the runs?"""
    wrong, seen = [], {}
    for run in study.runs:
        summary = read(study.run_folder(run) / "summary.json")
        try:
            recorded = summary["contract"]["determined_by"]["code"]
        except (KeyError, TypeError):
            continue
        key = study.framework(run)
        if key not in seen:
            try:
                modules = ("lockstep.training.worker", *framework_modules(*key))
                seen[key] = code.digest(*modules, package=package)
            except (OSError, SyntaxError, ValueError, RecursionError, ImportError) as error:
                return Check(name="source", says="", wrong=[f"source/workflow/lockstep: {error}"])
        if seen[key] != recorded:
            wrong.append(f"source/workflow/lockstep: is not the code that trained {run.name}")
    if not seen:
        return Check(name="source", says="no run to compare with", open=True)
    return Check(name="source", says="the archived code is what trained every run", wrong=wrong)


def sha256(path: Path) -> str:
    """Return a small file's sha256."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
