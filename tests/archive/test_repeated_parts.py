"""Archived images and data, used where an archive is run again: said before, and found then."""

import json
from pathlib import Path
from typing import Any

import pytest

from lockstep import files
from lockstep.archive import archive_reader, layout
from lockstep.errors import UserError
from lockstep.images.identity import recipe
from lockstep.reproduce import repetition, reproduction_plan
from lockstep.study import Study, config
from tests.archive import tamper
from tests.archive.tamper import Contents
from tests.conftest import DIGITS, ROOT

SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"  # of b"test"
SHARD = "data/datasets/photos-0123456789ab/train-00000.h5"
READY = "data/images/torch-ready-0123456789ab/image.sif"


def described(folder: str, **fields: Any) -> Contents:
    return {f"{folder}/manifest.json": json.dumps({"identity": "0" * 64, **fields}).encode()}


def set_up(
    folder: Path, contents: Contents, *, raw: Path | None = None, dataset: str = "photos"
) -> tuple[Study, list[str]]:
    """Set up a study of an archive with these data and images.

    Returns:
        The study as the workflow finds it, and what is said before.
    """
    told = config.complete(
        {
            **DIGITS,
            "datasets": {"photos": {"source": "image_folder", "raw": "/home/ada/photos"}},
            "workloads": {"mnist_cnn": {"dataset": "photos"}},
            "images": {"enabled": True},
        }
    )
    told["datasets"][dataset] = told["datasets"].pop("photos")  # which no config can be called
    told["workloads"]["mnist_cnn"]["dataset"] = dataset
    for path in (ROOT / "workflow" / "lockstep").rglob("*.py"):
        contents[f"source/{path.relative_to(ROOT)}"] = path.read_bytes()
    contents[layout.STUDY] = json.dumps(told).encode()
    about = {
        "schema": layout.SCHEMA, "study": told["study"], "lockstep": "0", "complete": True,
        "missing": [], "include": {}, "source": {"commit": None, "note": ""},
        "rewritten": [], "executable": [], "links": [],
    }  # fmt: skip
    contents[layout.ABOUT] = json.dumps(about).encode()
    file = folder / "x.zip"
    tamper.store(file, tamper.reseal(contents))
    with archive_reader.opened(file) as archive:
        chosen = reproduction_plan.plan(
            archive,
            folder=folder / "again",
            profile="profiles/local",
            raw=[f"photos={raw}"] if raw else [],
        )
        repetition.set_up(archive, chosen)
        lines = reproduction_plan.lines(chosen, archive, trusted=True)
    assert lines[0] == f"archive: {file}, sha256 {files.sha256_file(file)}"
    study = Study(json.loads((chosen.checkout / reproduction_plan.CONFIG).read_text()))
    study.data = chosen.checkout / study.data
    return study, lines


@pytest.mark.parametrize("staged", [False, True])
def test_shards_of_staged_files_are_found_without_the_files(tmp_path: Path, staged: bool) -> None:
    contents = {SHARD: b"test", **described(SHARD.rpartition("/")[0], name="photos")}
    study, lines = set_up(tmp_path, contents, raw=tmp_path if staged else None)
    manifest = study.dataset_manifest("photos")
    assert json.loads(manifest.read_text())["identity"] == study.dataset_identity("photos")
    assert (manifest.parent / "train-00000.h5").read_bytes() == b"test"
    assert [path.name for path in (study.data / "datasets").iterdir()] == [manifest.parent.name]
    assert "datasets: photos, archived shards, below" in lines
    assert f"  archived: {SHARD}, sha256 {SHA256}" in lines


def test_shards_go_nowhere_else(tmp_path: Path) -> None:
    name = "../../../../elsewhere"
    contents = {SHARD: b"test", **described(SHARD.rpartition("/")[0], name=name)}
    with pytest.raises(UserError, match="nothing was written"):
        set_up(tmp_path, contents, dataset=name)
    assert [path.name for path in tmp_path.iterdir()] == ["x.zip"]


def test_built_images_lie_where_the_workflow_would_build_them(tmp_path: Path) -> None:
    folder = f"data/images/{recipe('base').folder}"
    contents = {f"{folder}/image.sif": b"test", **described(folder, name="base")}
    study, lines = set_up(tmp_path, contents)
    assert study.images["base"].sif.read_bytes() == b"test"
    assert study.images["base"].manifest.is_file()
    assert f"  archived: {folder}/image.sif, sha256 {SHA256}" in lines
    assert "images: archived ones, below; others are built from the definitions" in lines


def test_images_that_nobody_built_are_given_to_the_workflow_again(tmp_path: Path) -> None:
    contents = {READY: b"test", **described(READY.rpartition("/")[0], name="torch")}
    study, _ = set_up(tmp_path, contents)
    torch = study.images["torch"]
    assert torch.ready is not None and torch.ready.read_bytes() == b"test"
    assert not torch.folder.exists()  # the workflow makes it
    assert study.images["jax"].ready is None


def test_it_says_where_images_come_from_if_none_is_archived(tmp_path: Path) -> None:
    _, lines = set_up(tmp_path, described("data/images/base-0123456789ab", name="base"))
    assert "images: built from the archived definitions and locks, cuda12" in lines
