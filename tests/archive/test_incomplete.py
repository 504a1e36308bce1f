"""What archiving refuses, and what it says is missing."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from lockstep.archive import layout
from tests.archive import tamper
from tests.archive.archived import ask, checks, git, holds, make, refused
from tests.end_to_end.checkout import Checkout
from tests.report.report_studies import TWO, config

RUN = "mnist_cnn/jax-jit/1x1/seed-1"


def test_a_study_that_is_not_complete_is_refused_or_says_so(copied: Checkout) -> None:
    shutil.rmtree(copied.results() / "runs" / RUN)
    (copied.results() / "blocks" / f"{RUN}.json").unlink()
    shutil.rmtree(copied.results() / "report")
    (dataset,) = copied.root.glob("data/datasets/*/manifest.json")
    dataset.unlink()
    said = refused(copied)
    assert "files of a complete study are missing" in said and "--partial" in said
    copied.lockstep("report", "--study", "results/small/study.json", "--partial")
    ask(copied, authors=[], licence=None, title=None)
    file, said = make(copied, partial=True, output=None)
    assert file.name == "small.partial.crate.zip"
    assert "THE STUDY IS NOT COMPLETE: 4 runs (3 finished, 1 missing)" in said
    assert "no authors: name them in the config, archive.authors" in said
    assert "no licence: state one in the config, archive.licence" in said
    contents = tamper.load(file)
    assert b"lockstep verify small.partial.crate.zip" in contents[layout.README]
    for name in (layout.README, layout.CRATE):
        assert b"THE STUDY IS NOT COMPLETE" in contents[name]
    told = json.loads(contents[layout.ABOUT])
    assert not told["complete"]
    assert {f"runs/{RUN}/summary.json", str(dataset.relative_to(copied.root))} < {*told["missing"]}
    assert "records: THE STUDY IS NOT COMPLETE" in holds(file)


def test_a_study_that_has_only_begun_can_be_archived(copied: Checkout) -> None:
    for name in ("runs", "blocks", "report", "parity", "weights", "logs", "states"):
        shutil.rmtree(copied.results() / name)
    found = checks(make(copied, partial=True)[0])
    assert not any(check.wrong for check in found)
    assert {check.name for check in found if check.skipped} == {"source", "parity"}


PARTS = (
    "data/datasets/*/train-00000.h5",
    "results/small/weights/mnist_cnn/seed-1.safetensors",
    f"results/small/runs/{RUN}/final.safetensors",
    "results/small/parity/mnist_cnn/jax-jit.npz",
)


def test_parts_that_are_asked_for_and_missing_are_an_error(copied: Checkout) -> None:
    ask(copied, include={"data": True, "checkpoints": True, "traces": True})
    names = []
    for (path,) in (copied.root.glob(pattern) for pattern in PARTS):
        names.append(path.relative_to(copied.root).as_posix().removeprefix("results/small/"))
        path.unlink()
        said = refused(copied)
        assert f"{len(names)} files of a complete study are missing (the first is " in said
        assert "leave parts out" in said
    file, _ = make(copied, partial=True)
    assert tamper.about(file)["missing"] == sorted(names)
    assert holds(file)


MODEL = "results/planted/deploy/mnist_cnn/artefacts/torch/export/model.pt2"
ROW = {"framework": "torch", "route": "export",
       "artefact": {"files": {"model.pt2": {"bytes": 5, "sha256": "abc"}}}}  # fmt: skip
RECORD = {"routes": [ROW, {"framework": "jax", "route": "eager"}]}


def read(name: str) -> Any:
    return RECORD if name == "results/planted/deploy/mnist_cnn/record.json" else None


@pytest.mark.parametrize("asked", [True, False])
def test_models_are_missing_only_where_they_are_asked_for(tmp_path: Path, asked: bool) -> None:
    """Those that the record of a deployment names."""
    archive = {"include": {"artefacts": asked}}
    told = config(tmp_path, variants=TWO, seeds=1, deploy={}, archive=archive)
    study = layout.named_as_archived(told)
    assert layout.artefacts(study, read) == {MODEL: "abc"}
    found = layout.missing(study, [], read)
    assert "deploy/mnist_cnn/record.json" in found
    assert (MODEL.removeprefix("results/planted/") in found) == asked
    assert layout.artefacts(layout.named_as_archived({**told, "deploy": None}), read) == {}


def test_what_verifying_would_not_read_is_not_archived(copied: Checkout) -> None:
    logs, record = copied.results() / "logs", copied.results() / "runs" / RUN / "windows.csv"
    for name in ("note.log", "Note.log"):
        (logs / name).touch()
    assert "which are one file where case does not count; rename it" in refused(copied)
    (logs / "Note.log").unlink()
    whole = record.read_bytes()
    record.write_bytes(bytes(5 << 20))
    said = refused(copied, partial=True)
    assert f"{RUN}/windows.csv: has 5.0 MiB, more than the 4 MiB that are read" in said
    record.write_bytes(whole)
    (copied.root / "demo" / os.fsdecode(b"\xff.txt")).touch()
    git(copied.root, "add", "--all", "demo")
    assert "which has characters that no name should have; rename it" in refused(copied)


ONCE = (
    "parity/mnist_cnn/old.npz", "parity/old/verdict.json", "blocks/mnist_cnn/old.json",
    "runs/mnist_cnn/jax-jit/1x1/seed-9/run.json",
)  # fmt: skip


def test_what_the_config_had_once_is_not_archived(copied: Checkout) -> None:
    for name in ONCE:
        path = copied.results() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
    held = tamper.load(make(copied)[0])
    assert not {f"results/small/{name}" for name in ONCE} & held.keys()
