"""Whether the records of an archive agree: each with itself, with its block, and with its data.

What makes a record sound is decided by `lockstep.report.record_validation`, as for the report.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lockstep import files
from lockstep.archive import completeness, layout
from lockstep.archive.archive_reader import Archive
from lockstep.archive.archived_study import include, named_as_archived
from lockstep.archive.check_result import Check, guarded
from lockstep.report import record_schema, record_tables, record_validation
from lockstep.report.record_tables import Unsound
from lockstep.study import Study
from lockstep.study.run import Run

SAME_MACHINE = ("cpu", "instruction_set", "system")
"""Of a node, whoever asks it, within an image or not: cores and GPUs are those of a SLURM step."""


def check(archive: Archive, study: Study) -> Check:
    """Is everything there that the archive says is there, and do the records agree?"""
    wrong = [*_whole(archive, study)]
    for name in archive.hashes:
        record = name.startswith(layout.RESULTS) and name.endswith(".json")
        if record and archive.json_of(name) is None:
            wrong.append(f"{name}: is not JSON")
    data = {kind: _manifests(archive, kind, wrong) for kind in ("datasets", "images")}
    for block in study.blocks:
        name = str(study.manifest(block))
        if name in archive.hashes:
            wrong += guarded(name, _block, archive, study, name, block)
    found = 0
    for run in study.runs:
        folder = str(study.run_folder(run))
        if f"{folder}/summary.json" in archive.hashes:
            found += 1
            problems = guarded("summary.json", _run, archive, study, run, data)
            wrong += [f"{folder}/{problem}" for problem in problems]
    missing = archive.about["missing"]
    says = f"{found} of {len(study.runs)} runs agree with their blocks, datasets and images"
    if missing:
        says = f"THE STUDY IS NOT COMPLETE, {len(missing)} files are missing, as it says; {says}"
    return Check(name="records", says=says, wrong=wrong)


def _whole(archive: Archive, study: Study) -> Iterator[str]:
    """Yield where ``archive.json`` is not what the files say."""
    names, told = {*archive.hashes}, archive.about
    missing = completeness.missing(study, names, archive.json_of)
    yield from (f"{n}: is missing, which {layout.ABOUT} does not say"
                for n in missing if n not in told["missing"])  # fmt: skip
    yield from (f"{n}: is said to be missing, but is there"
                for n in told["missing"] if n not in missing)  # fmt: skip
    yield from (f"{n}: is missing" for n in layout.DERIVED if n not in names)
    yield from completeness.unexpected(study, names, archive.json_of)
    if told["complete"] != (not missing) or told["include"] != include(study.config):
        yield f"{layout.ABOUT}: complete or include are not what files and config say"
    again = archive.json_of(layout.STUDY)
    # In its order, too: parity is measured against the first variant.
    if json.dumps(again) != json.dumps(named_as_archived(study.config).config):
        yield f"{layout.STUDY}: is not the config of the study as it was run"


def _manifests(archive: Archive, kind: str, wrong: list[str]) -> dict[str, Any]:
    """Return the manifests of datasets or images by identity; adds what is wrong with them."""
    schema = {"datasets": record_schema.DATASET, "images": record_schema.IMAGE}[kind]
    found: dict[str, Any] = {}
    for name in archive.hashes:
        if name.startswith(f"{layout.DATA}{kind}/") and name.endswith("/manifest.json"):
            manifest = archive.json_of(name)
            field = record_schema.unsound(manifest, schema)
            if field is not None:
                wrong.append(f"{name}: field {field!r} is missing or not of its kind")
                continue
            found[manifest["identity"]] = manifest
            wrong += guarded(name, _manifest, archive, name, manifest)
    return found


def _manifest(archive: Archive, name: str, manifest: Mapping[str, Any]) -> Iterator[str]:
    folder = name.rpartition("/")[0]
    if not folder.endswith(manifest["identity"][:12]):
        yield f"{name}: its identity is not that of its folder"
    if "splits" in manifest:
        contents = {split: [shard["content"] for shard in part["shards"]]
                    for split, part in manifest["splits"].items()}  # fmt: skip
        if manifest["content"] != files.digest(contents):
            yield f"{name}: its content is not that of its shards"
        hashes = completeness.shards(manifest)
    else:
        hashes = {"image.sif": manifest["sif"]["sha256"]}
    for below in archive.hashes:
        inner = below.removeprefix(f"{folder}/")
        if inner in (below, "manifest.json"):
            continue
        if archive.hashes[below] != hashes.get(inner):
            yield f"{below}: is not what its manifest has the hash of"


def _block(archive: Archive, study: Study, name: str, block: str) -> Iterator[str]:
    manifest, runs = archive.json_of(name), study.blocks[block].runs
    field = record_schema.unsound(manifest, record_schema.BLOCK)
    if field is not None:
        yield f"{name}: field {field!r} is missing or not of its kind"
        return
    if manifest["block"] != block or {*manifest["runs"]} != {run.name for run in runs}:
        yield f"{name}: does not list the runs of this block"
        return
    for run in runs:
        entry, folder = manifest["runs"][run.name], study.run_folder(run)
        if {*entry["sha256"]} != {*layout.RECORDS, layout.FINAL}:
            yield f"{name}: does not list the records of {run.name}"
        for record, sha256 in entry["sha256"].items():
            if archive.hashes.get(f"{folder}/{record}", sha256) != sha256:
                yield f"{folder}/{record}: is not what its block has the hash of"
        summary = archive.json_of(f"{folder}/summary.json")
        for key in ("identity", "status") if isinstance(summary, dict) else ():
            if summary.get(key) != entry.get(key):
                yield f"{folder}/summary.json: {key} is not what its block says"


def _run(
    archive: Archive, study: Study, run: Run, data: Mapping[str, Mapping[str, Any]]
) -> Iterator[str]:
    """Yield what is wrong with a run, each beginning with the name of its file."""
    folder = study.run_folder(run)
    try:
        content = archive.bytes_of(f"{folder}/summary.json")
        summary = record_validation.read_summary(study, run, content)
    except Unsound as problem:
        yield str(problem)
        return
    yield from record_validation.identity_problems(summary, study.run_config(run))
    yield from _tables(archive, summary, str(folder))
    yield from _around(archive, study, run, summary, data)


def _tables(archive: Archive, summary: Mapping[str, Any], folder: str) -> Iterator[str]:
    """Yield where a run's tables do not follow from its steps, or the summary not from them."""
    tables: dict[str, Any] = {}
    for name in record_tables.TABLES:
        if f"{folder}/{name}" in archive.hashes:
            try:
                content = archive.bytes_of(f"{folder}/{name}")
                tables[name] = record_tables.read_columns(content, name)
            except Unsound as problem:
                yield str(problem)
    if len(tables) < len(record_tables.TABLES):
        return
    epochs, windows = tables["epochs.csv"], tables["windows.csv"]
    try:
        record_validation.check(summary, epochs, windows)
    except Unsound as problem:
        yield str(problem)
    if f"{folder}/steps.npz" in archive.hashes:
        try:
            steps = record_tables.read_steps(archive.bytes_of(f"{folder}/steps.npz"), summary)
        except Unsound as problem:
            yield str(problem)
        else:
            yield from record_tables.from_steps(steps, summary, epochs, windows)


def _around(
    archive: Archive, study: Study, run: Run, summary: Mapping[str, Any],
    data: Mapping[str, Mapping[str, Any]],
) -> Iterator[str]:  # fmt: skip
    """Yield where a summary is not what its block, job, dataset and image say."""
    contract, folder = summary["contract"], study.run_folder(run)
    determined, host = contract["determined_by"], contract["host"]
    block = next(name for name, block in study.blocks.items() if run in block.runs)
    manifest = archive.json_of(str(study.manifest(block)))
    if record_schema.unsound(manifest, record_schema.BLOCK) is None:
        listed = manifest["runs"].get(run.name, {}).get("sha256", {})
        for name, sha256 in (summary.get("sha256") or {}).items():
            if listed.get(name, sha256) != sha256:
                yield f"summary.json: its hash of {name} is not its block's"
    weights = str(study.weights(run.workload, run.seed))
    if archive.hashes.get(weights, determined["weights"]) != determined["weights"]:
        yield f"summary.json: was trained from other weights than {weights}"
    dataset = data["datasets"].get(summary["dataset"]["identity"])
    missing = archive.about["missing"]
    if dataset is None and not _is_named(summary["dataset"]["identity"], missing):
        name = summary["dataset"]["name"]
        yield f"summary.json: the archive does not describe its dataset {name}"
    if dataset is not None:
        for key in ("name", "source", "content", "licence"):
            if dataset[key] != summary["dataset"][key]:
                yield f"summary.json: dataset.{key} is not that of data/datasets"
    image = host.get("image")
    if image is not None:
        known = data["images"].get(image["identity"])
        if known is None and not _is_named(image["identity"], missing):
            yield f"summary.json: the archive does not describe its image {image['name']}"
        if known is not None and known["sif"]["sha256"] != image["sif_sha256"]:
            yield "summary.json: its image's sha256 is not that of data/images"
        if determined["environment"] != {"image": image["identity"]}:
            yield "summary.json: its identity was made with another image than it names"
    if f"{folder}/run.json" in archive.hashes:
        told = archive.json_of(f"{folder}/run.json")
        keys = ("study", "workload", "variant", "scale", "seed", "identity", "trajectory")
        was = {key: summary[key] for key in keys} | {"recipe": contract["recipe"],
               "settings": contract["variant"], "determined_by": determined}  # fmt: skip
        wrong = [k for k, v in was.items() if not isinstance(told, dict) or told.get(k) != v]
        yield from (f"run.json: {key} is not that of summary.json" for key in wrong)
    name = f"{layout.RESULTS}{study.name}/logs/train/{block}.json"
    if name in archive.hashes:
        job = archive.json_of(name)
        field = record_schema.unsound(job, record_schema.JOB)
        if field is not None:
            yield f"summary.json: {name} has no sound field {field!r}"
        elif _made_by(summary, job) and job["host"].get("node") == host.get("node"):
            for key in SAME_MACHINE:
                if host.get(key) != job["host"].get(key):
                    yield f"summary.json: contract.host.{key} is not that of its job, {name}"


def _is_named(identity: str, missing: list[str]) -> bool:
    return any(identity[:12] in name for name in missing)


def _made_by(summary: Mapping[str, Any], job: Mapping[str, Any]) -> bool:
    """Whether a run's last attempt was made by a job; an earlier one may have been elsewhere."""
    attempts = (summary["contract"]["host"].get("job") or {}).get("attempts")
    if not attempts:
        return False
    return bool(job["started"] <= attempts[-1]["started"] and summary["ended"] <= job["ended"])
