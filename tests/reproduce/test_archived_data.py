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
from tests.conftest import DIGITS

pytestmark = pytest.mark.usefixtures("file")

SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"  # of b"test"
SHARDS = "data/datasets/photos-0123456789ab"
UNDESCRIBED = "data/datasets/others-0123456789ab/train.h5"
READY = "data/images/torch-ready-0123456789ab"


def set_up(
    folder: Path, held: str, file: str | None, *, raw: Path | None = None, **more: str
) -> tuple[Study, list[str]]:
    """Set up a study of the archive `copy.crate.zip`, with one folder of data that is described;
    returns the study as the workflow finds it, and what is said before.

    Args:
        held: the folder's name; its manifest is of what stands there before the first hyphen.
        file, more: in that folder, and in that manifest.
    """
    told: dict[str, Any] = {"identity": "0" * 64, "name": Path(held).name.split("-")[0], **more}
    dataset = told["name"] if held == SHARDS else "photos"
    asked = {**DIGITS, "images": {"enabled": True},
             "datasets": {"photos": {"source": "image_folder", "raw": "/home/ada/photos"}},
             "workloads": {"mnist_cnn": {"dataset": "photos"}}}  # fmt: skip
    study = config.complete(asked)
    study["datasets"][dataset] = study["datasets"].pop("photos")  # which no config may call so
    study["workloads"]["mnist_cnn"]["dataset"] = dataset
    made = {f"{held}/manifest.json": told, layout.STUDY: study}
    contents = {name: json.dumps(value).encode() for name, value in made.items()}
    contents |= {f"{held}/{file}": b"test", UNDESCRIBED: b""} if file else {}
    path, staged = folder / "copy.crate.zip", [f"photos={raw}"] if raw else []
    tamper.forge(path, lambda archive: archive.update(contents))
    options = {"folder": folder / "again", "profile": "profiles/local", "raw": staged}
    with archive_reader.opened(path) as archive:
        chosen = reproduction_plan.plan(archive, **options)
        repetition.set_up(archive, chosen)
        lines = reproduction_plan.lines(chosen, archive, trusted=True)
    assert lines[0] == f"archive: {path}, sha256 {files.sha256_file(path)}"
    again = Study(json.loads((chosen.checkout / reproduction_plan.CONFIG).read_text()))
    again.data = chosen.checkout / again.data
    return again, lines


@pytest.mark.parametrize("staged", [False, True])
def test_shards_of_staged_files_are_found_without_the_files(tmp_path: Path, staged: bool) -> None:
    study, lines = set_up(tmp_path, SHARDS, "train.h5", raw=tmp_path if staged else None)
    manifest = study.dataset_manifest("photos")
    assert json.loads(manifest.read_text())["identity"] == study.dataset_identity("photos")
    assert (manifest.parent / "train.h5").read_bytes() == b"test"
    assert [path.name for path in (study.data / "datasets").iterdir()] == [manifest.parent.name]
    assert "datasets: photos, archived shards, below" in lines
    assert f"  archived: {SHARDS}/train.h5, sha256 {SHA256}" in lines


def test_shards_go_nowhere_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing was written"):
        set_up(tmp_path, SHARDS, "train.h5", name="../../../../elsewhere")
    assert [path.name for path in tmp_path.iterdir()] == ["copy.crate.zip"]


def test_built_images_lie_where_the_workflow_would_build_them(tmp_path: Path) -> None:
    folder = f"data/images/{recipe('base').folder}"
    study, lines = set_up(tmp_path, folder, "image.sif")
    assert study.images["base"].sif.read_bytes() == b"test"
    assert study.images["base"].manifest.is_file()
    assert f"  archived: {folder}/image.sif, sha256 {SHA256}" in lines
    assert "images: archived ones, below; others are built from the definitions" in lines


def test_images_that_nobody_built_are_given_to_the_workflow_again(tmp_path: Path) -> None:
    study, _ = set_up(tmp_path, READY, "image.sif")
    torch = study.images["torch"]
    assert torch.ready is not None and torch.ready.read_bytes() == b"test"
    assert not torch.folder.exists()  # the workflow makes it
    assert study.images["jax"].ready is None


def test_it_says_where_images_come_from_if_none_is_archived(tmp_path: Path) -> None:
    _, lines = set_up(tmp_path, "data/images/base-0123456789ab", None)
    assert "images: built from the archived definitions and locks, cuda12" in lines
