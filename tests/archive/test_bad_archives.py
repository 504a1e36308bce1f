"""Files that are no archives, or hostile ones: one clear line, status 2, nothing left behind."""

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lockstep.__main__ import main
from lockstep.archive import archive_reader, layout, verify, zip_container
from lockstep.archive.archive_reader import Archive
from lockstep.errors import UserError
from tests.archive import tamper
from tests.archive.tamper import Contents
from tests.conftest import lockstep, small_disk

Refused = Callable[[Path], str]


@pytest.fixture
def refused(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> Refused:
    """Verify a file that cannot be used; returns the one line that says why."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def verify(path: Path) -> str:
        before = sorted(tmp_path.rglob("*"))
        status = main(["verify", str(path)])
        told = capsys.readouterr()
        assert status == 2, told.out
        assert told.out == ""
        assert told.err.count("\n") == 1 and told.err.startswith("lockstep: error: ")
        assert sorted(tmp_path.rglob("*")) == before
        return told.err

    return verify


def test_what_is_no_file(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "no such file" in refused(tmp_path / "none.zip")
    assert "not an archive of Lockstep" in refused(tmp_path / "folder")
    assert "cannot be read, file name too long" in refused(tmp_path / ("x" * 300))


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all" * 100])
def test_not_a_zip_file(refused: Refused, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    assert "not a whole zip file" in refused(tmp_path / "x.zip")


@pytest.mark.parametrize("share", [0.001, 0.5, 0.99999])
def test_a_truncated_archive(refused: Refused, file: Path, share: float) -> None:
    os.truncate(file, int(file.stat().st_size * share))
    assert "not a whole zip file" in refused(file)


def test_a_zip_file_that_is_no_crate(refused: Refused, tmp_path: Path) -> None:
    tamper.store(tmp_path / "x.zip", {"a.txt": b"hello"})
    assert "not an archive of Lockstep, it holds no manifest-sha256.txt" in refused(
        tmp_path / "x.zip"
    )


def test_another_schema_version(refused: Refused, file: Path) -> None:
    def change(told: dict) -> None:
        told["schema"] = "lockstep-archive/3"

    tamper.forge(file, lambda contents: tamper.edit_json(contents, layout.ABOUT, change))
    said = refused(file)
    assert "schema 'lockstep-archive/3'" in said and "lockstep-archive/2" in said


def test_an_archive_of_the_former_format(refused: Refused, tmp_path: Path) -> None:
    told = {"schema": "lockstep-archive/1", "lockstep": "0.1.0", "files": {}}
    former = {"manifest.json": json.dumps(told).encode(), layout.CRATE: b"{}"}
    tamper.store(tmp_path / "x.zip", former)
    said = refused(tmp_path / "x.zip")
    assert "was made by Lockstep 0.1.0, in the former format lockstep-archive/1; verify it" in said


@pytest.mark.parametrize("line", [b"no hash", b"0" * 64 + b" one space", b"\xff"])
def test_a_list_of_hashes_that_is_none(refused: Refused, file: Path, line: bytes) -> None:
    contents = tamper.load(file)
    contents[layout.HASHES] += line + b"\n"
    tamper.store(file, contents)
    assert layout.HASHES in refused(file)


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/passwd",
        "a/../../outside",
        "a//b",
        "a/./b",
        "C:/windows",
        "a\\..\\b",
        "a\nb",
        "results/",
        "ARCHIVE.json",
        "a\x9bb",
        "archive.json/inside",
    ],
)
def test_hostile_names(refused: Refused, file: Path, tmp_path: Path, name: str) -> None:
    contents = tamper.load(file)
    contents[name] = b"hello"
    tamper.store(file, contents)
    assert "it was not opened" in refused(file)


def test_a_name_that_is_a_command_to_the_terminal(refused: Refused, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_STORED) as file:
        file.writestr("a\x1b[2Jb", bytes(1000))
    assert r"a\x1b[2Jb" in refused(tmp_path / "x.zip")


def test_a_zip_bomb(refused: Refused, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in (layout.HASHES, layout.CRATE):
            bomb.writestr(name, bytes(50 << 20))
    assert "not a whole zip file" in refused(tmp_path / "bomb.zip")


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        (layout.HASHES, 16),
        (layout.CRATE, 16),
        ("results/small/runs/mnist_cnn/jax-jit/1x1/seed-0/summary.json", 4),
        ("results/small/runs/mnist_cnn/jax-jit/1x1/seed-0/windows.csv", 4),
        ("results/small/blocks/mnist_cnn/jax-jit/1x1/seed-0.json", 4),
        ("results/small/report/report.json", 64),
    ],
)
def test_what_is_too_large_to_be_read(refused: Refused, file: Path, name: str, limit: int) -> None:
    contents = tamper.load(file) | {"source/large.json": bytes(65 << 20)}
    contents[name] = bytes((limit << 20) + 100_000)
    tamper.store(file, contents)
    assert f"{name} has {limit}.1 MiB, more than the {limit} MiB that are read" in refused(file)


def test_no_room_for_what_verifying_extracts(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        monkeypatch.setenv("TMPDIR", str(disk))
        done = lockstep("verify", file, check=False)
        assert done.returncode == 2
        assert "cannot be written, no space left on device" in done.stderr
        assert done.stderr.count("\n") == 1 and list(disk.iterdir()) == []


LINKS = {
    "../../outside": "a link out of its folder",
    "/etc/passwd": "a link out of its folder",
    "workflow/../../outside": "a link out of its folder",
    "": "a link out of its folder",
    "a\0b": "a link out of its folder",
    "x" * 4096: "cannot be written, file name too long",
}


def of(path: Path, contents: Contents, links: Sequence[str] = ()) -> Archive:
    """An archive of these files and nothing else."""
    tamper.store(path, contents)
    stream = open(path, "rb")  # noqa: SIM115  # closed with the reader
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    about = {"links": links, "executable": []}
    reader = zip_container.Reader(stream)
    reader.stream = stream  # type: ignore[attr-defined]
    return Archive(path=path, reader=reader, sha256=None, hashes=hashes, about=about)


@pytest.mark.parametrize("target", LINKS, ids=range(len(LINKS)))
def test_links_that_cannot_be_made_are_one_line(tmp_path: Path, target: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    archive = of(tmp_path / "x.zip", {"source/slurm": target.encode()}, ["source/slurm"])
    with pytest.raises(UserError, match=LINKS[target]):
        archive_reader.extract(archive, bool, folder)
    assert not any(path.is_symlink() for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("key", "value", "field"),
    [
        ("links", ["results/small/study.json"], "links.0"),
        ("executable", ["README.md"], "executable.0"),
        ("missing", [[]], "missing.0"),
        ("include", {"data": 1}, "include.data"),
        ("source", {}, "source.commit"),
        ("study", "../x", "study"),
    ],
)
def test_facts_of_another_shape_are_one_line(
    refused: Refused, file: Path, key: str, value: object, field: str
) -> None:
    """Among them: only files of the source are links, or are executed."""

    def change(told: dict) -> None:
        told[key] = value

    tamper.forge(file, lambda contents: tamper.edit_json(contents, layout.ABOUT, change))
    assert f"archive.json: field '{field}' is missing or not of its kind" in refused(file)


# While it is read -----------------------------------------------------------------------------


def test_an_archive_that_becomes_shorter_is_one_line(file: Path) -> None:
    says = "the file ends within it; is it being written"
    with pytest.raises(UserError, match=says), archive_reader.opened(file) as archive:
        os.truncate(file, file.stat().st_size // 2)
        list(verify.verified(archive))


def test_what_changes_after_it_was_verified_is_not_used(tmp_path: Path) -> None:
    archive = of(tmp_path / "x.zip", {"source/a": b"content"})
    tamper.flip(tmp_path / "x.zip", archive.reader.place("source/a"), 1)
    with pytest.raises(UserError, match="source/a was changed after it was verified"):
        archive_reader.extract(archive, bool, tmp_path)
