"""What archiving refuses, and what it says is missing."""

import json
import os
import shutil
from pathlib import Path

import pytest

from lockstep.archive import build, layout, verify
from lockstep.errors import UserError
from lockstep.study import Study
from tests.archive import tamper
from tests.archive.conftest import Archived, ask, git, make, wrong
from tests.conftest import lockstep
from tests.end_to_end.checkout import Checkout


def test_a_study_that_is_not_complete_is_refused_or_says_so(copied: Checkout) -> None:
    shutil.rmtree(copied.results() / "runs" / "mnist_cnn" / "jax-jit" / "1x1" / "seed-1")
    (copied.results() / "blocks" / "mnist_cnn" / "jax-jit" / "1x1" / "seed-1.json").unlink()
    shutil.rmtree(copied.results() / "report")
    said = make(copied, status=2)
    assert "files of a complete study are missing" in said.text and "--partial" in said.text
    copied.lockstep("report", "--study", "results/small/study.json", "--partial")
    said = make(copied, "--partial")
    assert "THE STUDY IS NOT COMPLETE: 4 runs (3 finished, 1 missing)" in said.text
    file = copied.results("small.partial.crate.zip")
    contents = tamper.load(file)
    assert b"THE STUDY IS NOT COMPLETE" in contents[layout.README]
    assert b"lockstep verify small.partial.crate.zip" in contents[layout.README]
    assert b"THE STUDY IS NOT COMPLETE" in contents[layout.CRATE]
    told = json.loads(contents[layout.ABOUT])
    assert not told["complete"]
    assert "runs/mnist_cnn/jax-jit/1x1/seed-1/summary.json" in told["missing"]
    checks = verify.verify(file)
    assert wrong(checks) == []
    assert any("NOT COMPLETE" in check.says for check in checks)


def test_a_study_that_has_only_begun_can_be_archived(copied: Checkout) -> None:
    for name in ("runs", "blocks", "report", "parity", "weights", "logs", "states"):
        shutil.rmtree(copied.results() / name)
    make(copied, "--partial")
    checks = verify.verify(copied.results("small.partial.crate.zip"))
    assert wrong(checks) == []
    assert {check.name for check in checks if check.skipped} == {"source", "parity"}


PARTS = (
    "data/datasets/*/train-00000.h5",
    "results/small/weights/mnist_cnn/seed-1.safetensors",
    "results/small/runs/mnist_cnn/jax-jit/1x1/seed-1/final.safetensors",
    "results/small/parity/mnist_cnn/jax-jit.npz",
)


def test_parts_that_are_asked_for_and_missing_are_an_error(
    archived: Archived, copied: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.root)
    config = archived.study.config
    config["archive"]["include"] = {"data": True, "checkpoints": True, "traces": True}
    (copied.results() / "study.json").write_text(json.dumps(config))
    paths = [path for pattern in PARTS for path in copied.root.glob(pattern)]
    names = [
        path.relative_to(copied.root).as_posix().removeprefix("results/small/") for path in paths
    ]
    for path, name in zip(paths, names, strict=True):
        path.rename(copied.root / "aside")
        with pytest.raises(UserError, match="leave parts out") as refusal:
            build.build(Study(config), output=Path("x.zip"), root=copied.root)
        assert f"1 files of a complete study are missing (the first is {name})" in str(
            refusal.value
        )
        (copied.root / "aside").rename(path)
    for path in paths:
        path.unlink()
    build.build(Study(config), output=Path("x.zip"), root=copied.root, partial=True)
    told = tamper.about(Path("x.zip"))
    assert told["missing"] == sorted(names) and len(names) == 4
    assert wrong(verify.verify(Path("x.zip"))) == []


def test_data_that_nothing_describes_any_more_are_missing(
    archived: Archived, copied: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.root)
    (manifest,) = Path("data/datasets").glob("*/manifest.json")
    manifest.unlink()
    study = Study(archived.study.config)
    with pytest.raises(UserError, match=f"the first is {manifest}"):
        build.build(study, output=Path("x.zip"), root=copied.root)
    build.build(study, output=Path("x.zip"), root=copied.root, partial=True)
    assert tamper.about(Path("x.zip"))["missing"] == [str(manifest)]
    assert wrong(verify.verify(Path("x.zip"))) == []


def test_a_record_that_verifying_would_not_read_is_not_archived(copied: Checkout) -> None:
    name = "runs/mnist_cnn/jax-jit/1x1/seed-0/windows.csv"
    with open(copied.results() / name, "ab") as stream:
        stream.truncate(5 << 20)
    said = make(copied, "--partial", status=2)
    assert f"{name}: has 5.0 MiB, more than the 4 MiB that are read" in said.text
    assert not copied.results("small.partial.crate.zip").exists()


def test_files_that_would_meet_in_one_are_not_archived(copied: Checkout) -> None:
    logs = copied.results() / "logs"
    for name in ("note.log", "Note.log"):
        (logs / name).touch()
    said = make(copied, "--output", "other.zip", status=2).text
    assert "which are one file where case does not count; rename it" in said
    (logs / "Note.log").unlink()
    odd = copied.root / "demo" / os.fsdecode(b"\xff.txt")
    odd.touch()
    git(copied.root, "add", "--all", "demo")
    said = make(copied, "--output", "other.zip", status=2).text
    assert "which has characters that no name should have; rename it" in said
    assert not (copied.root / "other.zip").exists()


@pytest.mark.parametrize(
    ("output", "says"),
    [("results", "is a folder; name a file"), ("Snakefile/x.zip", "nothing was")],
)
def test_a_place_that_cannot_be_written_is_one_line(
    archived: Archived, output: str, says: str
) -> None:
    said = make(archived.checkout, "--output", output, status=2).text
    assert says in said and said.count("\n") == 1


def test_a_study_without_authors_says_so(copied: Checkout) -> None:
    ask(copied, authors=[], licence=None, title=None)
    said = make(copied)
    assert "no authors: name them in the config, archive.authors" in said.text
    assert "no licence: state one in the config, archive.licence" in said.text


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("authors: [{orcid: x}]", "archive"),
        ("authors: [{name: Ada, orcid: 0000-0002-1825-0098}]", "which has a wrong digit"),
        ("licence: MTI", "archive.licence is 'MTI'; write an SPDX"),
        ("licence: apache-2.0", "archive.licence is 'apache-2.0'; write Apache-2.0"),
        ("doi: https://doi.org/x", "archive.doi"),
    ],
)
def test_a_mistake_in_the_config_is_one_line(tmp_path: Path, field: str, says: str) -> None:
    text = (
        "study: x\ndatasets: {d: {source: digits}}\nworkloads: {mnist_cnn: {dataset: d}}\n"
        f"variants: {{a: {{framework: torch, mode: eager}}}}\narchive: {{{field}}}\n"
    )
    (tmp_path / "config.yaml").write_text(text)
    done = lockstep("check", tmp_path / "config.yaml", check=False)
    assert done.returncode == 2
    assert says in done.stderr and done.stderr.count("\n") == 1


ONCE = (
    "parity/mnist_cnn/old.npz", "parity/old/verdict.json", "blocks/mnist_cnn/old.json",
    "runs/mnist_cnn/jax-jit/1x1/seed-9/run.json",
)  # fmt: skip


def test_what_the_config_had_once_is_not_archived(copied: Checkout) -> None:
    for name in ONCE:
        path = copied.results() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
    make(copied, "--output", "x.zip")
    assert not {f"results/small/{name}" for name in ONCE} & {*tamper.load(copied.root / "x.zip")}
