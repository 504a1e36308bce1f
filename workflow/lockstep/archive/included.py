"""Whether data, images and states are those that the records name, down to what is within them."""

import concurrent.futures
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.archive import inner, layout
from lockstep.archive.completeness import read, shards
from lockstep.archive.findings import Check, guarded
from lockstep.archive.opened import Opened
from lockstep.study import Study

Listed = Mapping[str, Mapping[str, Any]]
CONTAINERS = f"{layout.SOURCE}containers/"


def data(archive: Opened, folder: Path) -> Check:
    """Are manifests, definitions, shards and images those of each other?

    Args:
        folder: with the manifests of datasets and images.
    """
    listed = archive.files
    wrong: list[str] = []
    for path in sorted(folder.glob("*/*/manifest.json")):
        below = f"{layout.DATA}{path.parent.parent.name}/{path.parent.name}/"
        wrong += guarded(f"{below}manifest.json", _named(path, below, listed))
        determined = _recipe if below.startswith(f"{layout.DATA}images/") else _whole
        wrong += guarded(f"{below}manifest.json", determined(path, listed))
    large = sum(name.startswith(layout.DATA) and name.endswith((".h5", ".sif")) for name in listed)
    said = f"{large} shards and images are those of their manifests" if large else "not included"
    try:
        wrong += _arrays(archive, folder)
    except ImportError:
        said += "; their arrays are not hashed, as h5py is not installed"
    return Check(name="data", says=said if large else f"described; {said}", wrong=wrong)


def _named(path: Path, below: str, listed: Listed) -> Iterator[str]:
    """Yield what of a folder its manifest does not say."""
    told = read(path)
    images = path.parent.parent.name == "images"
    known = {"image.sif": told["sif"]["sha256"]} if images else shards(told)
    if not path.parent.name.endswith(told["identity"][:12]):
        yield f"{below}manifest.json: its identity is not that of its folder"
    for name in sorted(name for name in listed if name.startswith(below)):
        file = name.removeprefix(below)
        if file not in (*known, "manifest.json"):
            yield f"{name}: its manifest does not name it"
        elif file in known and listed[name]["sha256"] != known[file]:
            yield f"{name}: is not what its manifest has the hash of"


def _whole(path: Path, listed: Listed) -> Iterator[str]:
    """Yield where a dataset's content is not that of its shards."""
    told = read(path)
    contents = {
        split: [shard["content"] for shard in part["shards"]]
        for split, part in told["splits"].items()
    }
    if told["content"] != files.digest(contents):
        yield f"{_name(path)}: its content is not that of its shards"


def _recipe(path: Path, listed: Listed) -> Iterator[str]:
    """Yield where an image is not that of the archived definitions and locks.

    Not by computing its identity anew: other versions of Lockstep make it of other things.
    """
    told = read(path)
    determined = told["determined_by"]
    if "definition" not in determined:
        return  # a finished image, of which nobody knows what it was built from
    if told["identity"] != files.digest(determined):
        yield f"{_name(path)}: its identity is not the hash of what it says that determined it"
    name, cuda = told["name"], told.get("cuda_generation")
    made_from = {f"{name}.def": determined["definition"], **determined["steps"]}
    made_from[f"locks/{f'{cuda}-{name}' if cuda else name}.txt"] = determined["python"]
    debian = "torch" if name == "torch" else "base"
    made_from[f"locks/debian-{debian}.txt"] = determined["debian"]
    for file, sha256 in made_from.items():
        if listed.get(CONTAINERS + file, {}).get("sha256") != sha256:
            yield f"{CONTAINERS}{file}: is not what image {path.parent.name} was built from"
    parent = determined["parent"]
    if isinstance(parent, str):
        bases = [read(p) for p in path.parents[1].glob("base-*/manifest.json")]
        if bases and parent not in [base.get("identity") for base in bases]:
            yield f"{_name(path)}: it was not built from the base image that is described"


def _name(path: Path) -> str:
    return f"{layout.DATA}{path.parent.parent.name}/{path.parent.name}/{path.name}"


def _arrays(archive: Opened, folder: Path) -> list[str]:
    """Return which archived shards do not hold what their manifests say.

    Raises:
        ImportError: there is no h5py.
    """
    members = archive.reader.members
    expected = {}
    for path in sorted((folder / "datasets").glob("*/manifest.json")):
        try:
            parts = read(path)["splits"].values()
            for shard in [shard for part in parts for shard in part["shards"]]:
                name = f"{layout.DATA}datasets/{path.parent.name}/{shard['file']}"
                if name in members:
                    expected[name] = shard["content"]
        except (KeyError, TypeError, AttributeError):
            continue  # said above
    if expected:
        import h5py  # noqa: F401  # or raise what is said of it

    def check(name: str) -> list[str]:
        return list(guarded(name, _differs(archive, name, inner.shard, {"": expected[name]})))

    return _at_once(check, sorted(expected))


# States ---------------------------------------------------------------------------------------


def weights(study: Study, archive: Opened) -> Check:
    """Are archived initial weights and final states those that the runs' records name?"""
    listed, members = archive.files, archive.reader.members
    top = f"{layout.RESULTS}{study.name}/"
    wrong: list[str] = []
    held: dict[str, dict[str, str]] = {}
    started: dict[str, str] = {}
    for run in study.runs:
        summary = read(study.run_folder(run) / "summary.json")
        try:
            trained_from = summary["contract"]["determined_by"]["weights"]
            states = {"initial": None, "final": None, **summary.get("weights", {})}
        except (KeyError, TypeError):
            continue  # said of the record itself
        if started.setdefault(trained_from, states["initial"]) != states["initial"]:
            wrong.append(f"runs/{run.name}/summary.json: other initial weights than in its file")
        initial = f"{top}weights/{run.workload}/seed-{run.seed}.safetensors"
        if initial in members:
            if listed[initial]["sha256"] != trained_from:
                wrong.append(f"{initial}: is not what {run.name} was trained from")
            held.setdefault(initial, {})[run.name] = states["initial"]
        final = f"{top}runs/{run.name}/{layout.FINAL}"
        if final in members:
            held[final] = {run.name: states["final"]}

    def check(name: str) -> list[str]:
        return list(guarded(name, _differs(archive, name, inner.state, held[name])))

    wrong += _at_once(check, sorted(held))
    said = f"{len(held)} initial and final states are those of the records"
    return Check(name="weights", says=said if held else "recorded; not included", wrong=wrong)


def _differs(
    archive: Opened, name: str, digest: Callable[..., str], expected: Mapping[str, str]
) -> Iterator[str]:
    found = digest(archive.reader, archive.reader.members[name])
    for run, said in expected.items():
        if found != said:
            whose = f"the record of {run}" if run else "its manifest"
            yield f"{name}: does not hold what {whose} says"


def _at_once(check: Callable[[str], list[str]], names: Sequence[str]) -> list[str]:
    """Return what a check finds in files, on as many cores as there are."""
    workers = min(8, len(os.sched_getaffinity(0)))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        return [problem for problems in pool.map(check, names) for problem in problems]
