"""Whether the records of an archive agree with each other: configs, blocks, runs, data, images."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.archive import arithmetic, arrays, conditions, layout
from lockstep.archive.completeness import missing, read
from lockstep.archive.findings import Check, guarded
from lockstep.datasets import checksum
from lockstep.study import Study
from lockstep.study.identity import run_code
from lockstep.study.run import Run

Listed = Mapping[str, Mapping[str, Any]]


def unreadable(study: Study) -> list[str]:
    """Return the JSON files of a study's folder that are none."""
    paths = sorted(study.root.rglob("*.json"))
    return [p.relative_to(study.root).as_posix() for p in paths if read(p) is None]


def records(study: Study, listed: Listed, data: Path) -> Check:
    """Do blocks, runs, datasets, weights and images say the same of each other?"""
    wrong = [f"{name}: is not JSON, or is cut short" for name in unreadable(study)]
    lacking = [name for name in missing(study, listed) if name.startswith(layout.DATA)]
    for name in study.blocks:
        wrong += guarded(f"blocks/{name}.json", _block(study, name, listed))
    told = [_by_identity(data / kind) for kind in ("datasets", "images")]
    summaries = {run: read(study.run_folder(run) / "summary.json") for run in study.runs}
    found = {run: summary for run, summary in summaries.items() if summary is not None}
    jobs = _jobs(study)
    for run, summary in found.items():
        unlike = guarded("summary.json", conditions.check(summary, jobs.get(run)))
        wrong += [f"runs/{run.name}/{problem}" for problem in unlike]
        problems = guarded("summary.json", _run(study, run, summary, *told, lacking=lacking))
        wrong += [f"runs/{run.name}/{problem}" for problem in problems]
    said = f"{len(found)} runs agree with their blocks, datasets, weights and images"
    return Check(name="records", says=said, wrong=wrong)


def _by_identity(folder: Path) -> dict[str, Any]:
    found = [read(path) for path in sorted(folder.glob("*/manifest.json"))]
    return {str(told.get("identity")): told for told in found if isinstance(told, dict)}


def _jobs(study: Study) -> dict[Run, Any]:
    """Return the record of each run's job, as far as there is one."""
    return {
        run: read(study.root / "logs" / "train" / f"{name}.json")
        for name, block in study.blocks.items()
        for run in block.runs
    }


def _block(study: Study, name: str, listed: Listed) -> Iterator[str]:
    found, runs = read(study.manifest(name)), study.blocks[name].runs
    if found is None:
        return
    if found["block"] != name or set(found["runs"]) != {run.name for run in runs}:
        yield f"blocks/{name}.json: does not list the runs of this block"
        return
    for run in runs:
        yield from _block_line(study, run, found["runs"][run.name], listed)


def _block_line(study: Study, run: Run, line: Mapping[str, Any], listed: Listed) -> Iterator[str]:
    below = f"{layout.RESULTS}{study.name}/runs/{run.name}/"
    if set(line["sha256"]) != {*layout.RECORDS, layout.FINAL}:
        yield f"runs/{run.name}: its block does not list its records"
    for name, sha256 in line["sha256"].items():
        entry = listed.get(below + name)
        if entry is not None and entry["sha256"] != sha256:
            yield f"runs/{run.name}/{name}: is not what its block has the hash of"
    summary = read(study.run_folder(run) / "summary.json")
    if isinstance(summary, dict):
        for field in ("identity", "status"):
            if summary.get(field) != line.get(field):
                yield f"runs/{run.name}/summary.json: {field} is not what its block says"
        for name, sha256 in (summary.get("sha256") or {}).items():
            if line["sha256"].get(name) != sha256:
                yield f"runs/{run.name}/summary.json: its hash of {name} is not its block's"


def _run(
    study: Study,
    run: Run,
    summary: Mapping[str, Any],
    datasets: Mapping[str, Any],
    images: Mapping[str, Any],
    *,
    lacking: Sequence[str],
) -> Iterator[str]:
    contract = summary["contract"]
    determined = contract["determined_by"]
    if files.digest(determined) != summary["identity"]:
        yield "summary.json: its identity is not the hash of what it says that determined it"
    # Records of before that have no `input` among them.
    names = ("recipe", "precision", "input", "dataset", "weights", "seed")
    trains = {name: determined[name] for name in names if name in determined}
    if files.digest(trains) != summary["trajectory"]:
        yield "summary.json: its trajectory is not the hash of what was trained"
    if determined["settings"] != study.run_config(run):
        yield "summary.json: its settings are not those of the study's config"
    if determined["dataset"] != summary["dataset"]["content"]:
        yield "its identity was made with another dataset than its record names"
    dataset = datasets.get(summary["dataset"]["identity"])
    if dataset is None:
        name = summary["dataset"]["name"]
        if not any(f"/{name}-{summary['dataset']['identity'][:12]}/" in n for n in lacking):
            yield f"summary.json: the archive does not describe its dataset {name}"
    else:
        for field in ("name", "source", "content", "licence"):
            if dataset[field] != summary["dataset"][field]:
                yield f"summary.json: its dataset's {field} is not what data/datasets says"
    image = contract["host"].get("image")
    if image is not None:
        known = images.get(image["identity"])
        if known is None and any(image["identity"][:12] in name for name in lacking):
            pass  # the manifest must say that it is missing
        elif known is None:
            yield f"summary.json: the archive does not describe its image {image['name']}"
        elif known["sif"]["sha256"] != image["sif_sha256"]:
            yield "summary.json: its image's sha256 is not what data/images says"
        if determined["environment"] != {"image": image["identity"]}:
            yield "its identity was made with another image than its record names"
    yield from _steps(study.run_folder(run), summary)
    told = read(study.run_folder(run) / "run.json")
    if told is not None:
        yield from _told(told, summary)


def _told(told: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield where what the run's processes were told is not what the run was."""
    contract = summary["contract"]
    names = ("study", "workload", "variant", "scale", "seed", "identity", "trajectory")
    was = {name: summary[name] for name in names}
    was |= {"recipe": contract["recipe"], "settings": contract["variant"]}
    was |= {"determined_by": contract["determined_by"]}
    for name, value in was.items():
        if told.get(name) != value:
            yield f"run.json: {name} is not that of summary.json"


def _steps(folder: Path, summary: Mapping[str, Any]) -> Iterator[str]:
    path = folder / "steps.npz"
    if not path.is_file():
        return
    try:
        stored = arrays.read(path)
    except arrays.Unreadable as problem:
        yield f"steps.npz: {problem}"
        return
    if len(stored["loss"]) != summary["steps"]:
        yield f"steps.npz: holds {len(stored['loss'])} steps instead of {summary['steps']}"
    if checksum.chain(stored["checksum"]) != summary["batches"]:
        yield "steps.npz: its batches are not those of the summary"
    yield from guarded("summary.json", arithmetic.flops(stored, summary))
    yield from guarded("windows.csv", arithmetic.windows(folder, stored, summary))
    yield from guarded("epochs.csv", arithmetic.epochs(folder, stored))


def source(study: Study, package: Path) -> Check:
    """Is the archived source what trained the runs?"""
    recorded = {}
    for run in study.runs:
        summary = read(study.run_folder(run) / "summary.json")
        try:
            recorded[run] = summary["contract"]["determined_by"]["code"]
        except (KeyError, TypeError):
            continue
    if not recorded:
        return Check(name="source", says="no run to compare with", open=True)
    wrong = list(guarded("source/workflow/lockstep", _strange(study, recorded, package)))
    return Check(name="source", says="the archived code is what trained every run", wrong=wrong)


def _strange(study: Study, recorded: Mapping[Run, str], package: Path) -> Iterator[str]:
    for run, trained in recorded.items():
        if run_code(*study.framework(run), package) != trained:
            yield f"source/workflow/lockstep: is not the code that trained {run.name}"
