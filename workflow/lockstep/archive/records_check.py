"""Whether the records of an archive agree: each with itself, with its block, and with its data.

What makes a record sound is decided by `lockstep.records.record_validation`, as for the report.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from lockstep.archive import layout
from lockstep.archive.archive_reader import Archive
from lockstep.archive.verify import Check, guarded
from lockstep.records import record_schema, record_tables, record_validation
from lockstep.records.record_tables import Unsound
from lockstep.study import Study
from lockstep.study.run import Run


def check(archive: Archive, study: Study) -> Check:
    """Is everything there that the archive says is there, and do the records agree?"""
    wrong = [*guarded(layout.ABOUT, _whole, archive, study)]
    manifests: dict[str, Any] = {}
    for name in archive.hashes:
        if name.startswith(layout.DATA) and name.endswith("/manifest.json"):
            wrong += guarded(name, _manifest, archive, name, manifests)
    for block in study.blocks:
        name = str(study.manifest(block))
        if name in archive.hashes:
            wrong += guarded(name, _block, archive, study, name, block)
    for name, sha256 in layout.artefacts(study, archive.json_of).items():
        if archive.hashes.get(name, sha256) != sha256:
            wrong.append(f"{name}: is not what the record of its deployment has the hash of")
    found = 0
    for run in study.runs:
        folder = str(study.run_folder(run))
        if f"{folder}/summary.json" in archive.hashes:
            found += 1
            problems = guarded("summary.json", _run, archive, study, run, manifests)
            wrong += [f"{folder}/{problem}" for problem in problems]
    missing = archive.about["missing"]
    says = f"{found} of {len(study.runs)} runs agree with their blocks, datasets and images"
    if missing:
        says = f"THE STUDY IS NOT COMPLETE, {len(missing)} files are missing, as it says; {says}"
    return Check(name="records", says=says, wrong=wrong)


def _whole(archive: Archive, study: Study) -> Iterator[str]:
    """Yield where ``archive.json`` is not what the files say."""
    names, told = {*archive.hashes}, archive.about
    missing = layout.missing(study, names, archive.json_of)
    for name in sorted({*missing} ^ {*told["missing"]}):
        how = "missing" if name in missing else "there"
        yield f"{name}: is {how}, which {layout.ABOUT} does not say"
    yield from (f"{name}: is missing" for name in layout.DERIVED if name not in names)
    yield from layout.unexpected(study, names, archive.json_of)
    for name in archive.hashes:
        record = name.startswith(layout.RESULTS) and name.endswith(".json")
        if record and archive.json_of(name) is None:
            yield f"{name}: is not JSON"
    if (told["complete"], told["include"]) != (not missing, layout.include(study.config)):
        yield f"{layout.ABOUT}: complete or include are not what files and config say"
    # In its order, too: parity is measured against the first variant.
    again = json.dumps(layout.reproducible(study.config))
    if json.dumps(archive.json_of(layout.STUDY)) != again:
        yield f"{layout.STUDY}: is not the config of the study as it was run"


def _manifest(archive: Archive, name: str, found: dict[str, Any]) -> Iterator[str]:
    """Add the manifest of a dataset or an image to those found, by its identity; yield where
    archived shards or images are not what it has the hash of.
    """
    manifest, folder = archive.json_of(name), name.removesuffix("manifest.json")
    dataset = name.startswith(f"{layout.DATA}datasets/")
    schema = record_schema.DATASET if dataset else record_schema.IMAGE
    field = record_schema.unsound(manifest, schema)
    if field is not None:
        yield f"{name}: field {field!r} is missing or not of its kind"
        return
    found[manifest["identity"]] = manifest
    hashes = layout.shards(manifest) if dataset else {"image.sif": manifest["sif"]["sha256"]}
    for file, sha256 in hashes.items():
        if archive.hashes.get(folder + file, sha256) != sha256:
            yield f"{folder}{file}: is not what its manifest has the hash of"


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


def _run(archive: Archive, study: Study, run: Run, manifests: Mapping[str, Any]) -> Iterator[str]:
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
    contract = summary["contract"]
    determined, image = contract["determined_by"], contract["host"].get("image")
    weights = str(study.weights(run.workload, run.seed))
    if archive.hashes.get(weights, determined["weights"]) != determined["weights"]:
        yield f"summary.json: was trained from other weights than {weights}"
    dataset = manifests.get(summary["dataset"]["identity"])
    if dataset and dataset["content"] != summary["dataset"]["content"]:
        yield "summary.json: dataset.content is not that of data/datasets"
    built = manifests.get(image["identity"]) if image else None
    if built and built["sif"]["sha256"] != image["sif_sha256"]:
        yield "summary.json: its image's sha256 is not that of data/images"


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
