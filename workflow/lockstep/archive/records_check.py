"""Whether the records of an archive agree: each with itself, with its block, and with its data.

What makes a record sound is decided by `lockstep.records`, as for the report: a run that the report
would leave out is a finding.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lockstep.archive import layout
from lockstep.archive.archive_reader import Archive
from lockstep.archive.verify import Check, guarded
from lockstep.records import record_schema, record_tables, record_validation
from lockstep.records.load import EXCLUDED, Record, Records
from lockstep.records.record_tables import Unsound
from lockstep.study import Study
from lockstep.study.run import Run


def check(archive: Archive, study: Study, records: Records) -> Check:
    """Is everything there that the archive says is there, and do the records agree?

    Args:
        study: whose paths are names in the archive.
        records: of the same study, read from extracted files.
    """
    wrong = [*guarded(layout.ABOUT, _whole, archive, study)]
    manifests: dict[str, Any] = {}
    for name in archive.hashes:
        if name.startswith(layout.DATA) and name.endswith("/manifest.json"):
            wrong += guarded(name, _manifest, archive, name, manifests)
    wrong += _hashed(archive, layout.artefacts(study, archive.json_of), "the deployment's record")
    for name in map(str, map(study.manifest, study.blocks)):
        wrong += guarded(name, _block, archive, study, name)
    top, missing = f"{layout.RESULTS}{study.name}/", archive.about["missing"]
    wrong += [f"{top}{where}: {why}" for where, why in records.excluded
              if where.startswith("blocks/")]  # fmt: skip
    incomplete = {n.rpartition("/")[0] for n in missing if n.endswith(layout.RECORDS)}
    for run, record in zip(study.runs, records.runs, strict=True):
        if str(record.folder) not in incomplete:
            extracted = records.study.root / record.folder
            found = guarded("summary.json", _run, archive, study, run, record, extracted, manifests)
            wrong += [f"{top}{record.folder}/{problem}" for problem in found]
    present = sum(f"{study.run_folder(run)}/summary.json" in archive.hashes for run in study.runs)
    says = f"{present} of {len(study.runs)} runs agree with their blocks, datasets and images"
    if missing:
        says = f"THE STUDY IS NOT COMPLETE, {len(missing)} files are missing, as it says; {says}"
    return Check(name="records", says=says, wrong=wrong)


def _whole(archive: Archive, study: Study) -> Iterator[str]:
    """Yield where ``archive.json`` and the config are not what the files say."""
    missing = layout.missing(study, archive.hashes, archive.json_of)
    for name in sorted({*missing} ^ {*archive.about["missing"]}):
        how = "missing" if name in missing else "there"
        yield f"{name}: is {how}, which {layout.ABOUT} does not say"
    # In its order, too: parity is measured against the first variant.
    again = json.dumps(layout.reproducible(study.config))
    if json.dumps(archive.json_of(layout.STUDY)) != again:
        yield f"{layout.STUDY}: is not the config of the study as it was run"


def _hashed(archive: Archive, hashes: Mapping[str, str], by: str) -> Iterator[str]:
    """Yield the files of an archive that are not what a record has the hash of.

    Args:
        hashes: sha256 of files, by name; they need not be in the archive.
        by: what record.
    """
    for name, sha256 in hashes.items():
        if archive.hashes.get(name, sha256) != sha256:
            yield f"{name}: is not what {by} has the hash of"


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
    inside = {folder + file: sha256 for file, sha256 in hashes.items()}
    yield from _hashed(archive, inside, "its manifest")


def _block(archive: Archive, study: Study, name: str) -> Iterator[str]:
    """Yield the arrays of a block's runs that it has other hashes of; see `load` for the rest."""
    manifest = archive.json_of(name)
    if record_schema.unsound(manifest, record_schema.BLOCK) is None:
        for run, entry in manifest["runs"].items():
            arrays = {f"{study.root}/runs/{run}/{file}": entry["sha256"].get(file)
                      for file in ("steps.npz", layout.FINAL)}  # fmt: skip
            yield from _hashed(archive, arrays, "its block")


def _run(
    archive: Archive, study: Study, run: Run, record: Record, folder: Path,
    manifests: Mapping[str, Any],
) -> Iterator[str]:  # fmt: skip
    """Yield what is wrong with a run, each beginning with the name of its file."""
    if record.status == EXCLUDED:
        yield str(record.reason)
    summary = record.summary
    if not summary:
        return
    yield from record_validation.identity_problems(summary, study.run_config(run))
    try:
        tables = [record_tables.read_columns((folder / name).read_bytes(), name)
                  for name in record_tables.TABLES]  # fmt: skip
        steps = record_tables.read_steps((folder / "steps.npz").read_bytes(), summary)
        yield from record_tables.from_steps(steps, summary, *tables)
    except Unsound as problem:
        yield str(problem)
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
