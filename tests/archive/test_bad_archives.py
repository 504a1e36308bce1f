"""Files that are no archives, or hostile ones: one clear line, status 2, nothing left behind."""

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from lockstep import files
from lockstep.__main__ import main
from lockstep.archive import container, layout, manifest, opened, scan, settings, verify
from lockstep.archive.container import LIMIT
from lockstep.errors import UserError
from tests.archive import tamper
from tests.archive.conftest import listed, wrong
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


def test_a_missing_file(refused: Refused, tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.zip")


def test_a_folder(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "not a file" in refused(tmp_path / "folder")


def test_a_name_that_no_file_can_have(refused: Refused, tmp_path: Path) -> None:
    assert "cannot be read, file name too long" in refused(tmp_path / ("x" * 300))


@pytest.mark.parametrize("content", [b"", b"PK", b"no zip at all" * 100])
def test_not_a_zip_file(refused: Refused, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    assert "not a whole archive of Lockstep" in refused(tmp_path / "x.zip")


@pytest.mark.parametrize("share", [0.001, 0.5, 0.99, 0.99999])
def test_a_truncated_archive(refused: Refused, file: Path, tmp_path: Path, share: float) -> None:
    os.truncate(file, int(file.stat().st_size * share))
    assert "cut short" in refused(file) or share > 0.99


def test_a_zip_file_that_is_no_crate(refused: Refused, tmp_path: Path) -> None:
    tamper.store(tmp_path / "x.zip", {"a.txt": b"hello"})
    assert "not an archive of Lockstep, it holds no manifest.json" in refused(tmp_path / "x.zip")


def test_another_schema_version(refused: Refused, file: Path, tmp_path: Path) -> None:
    contents = tamper.load(file)
    told = json.loads(contents[layout.MANIFEST])
    del told["digest"]
    contents[layout.MANIFEST] = manifest.render({**told, "schema": "lockstep-archive/2"})
    tamper.store(file, contents)
    said = refused(file)
    assert "schema 'lockstep-archive/2'" in said and "lockstep-archive/1" in said


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
        "MANIFEST.json",
        "x" * 2000,
        "x" * 300,
        "ü" * 200,
        "a\x9bb",
        "manifest.json/inside",
    ],
)
def test_hostile_names(refused: Refused, file: Path, tmp_path: Path, name: str) -> None:
    contents = tamper.load(file)
    contents[name] = b"hello"
    tamper.store(file, contents)
    assert "not touched" in refused(file)


def test_a_name_that_is_there_twice(refused: Refused, file: Path, tmp_path: Path) -> None:
    contents = tamper.load(file)
    with open(file, "wb") as stream:
        writer = container.Writer(stream)
        for name, content in [*contents.items(), ("README.md", b"another")]:
            writer.add(name, [content], len(content))
        writer.close()
    assert "README.md: is in the file twice" in refused(file)


def test_a_name_that_is_a_command_to_the_terminal(refused: Refused, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a\x1b[2Jb", bytes(1000))
    assert r"a\x1b[2Jb: is compressed" in refused(tmp_path / "x.zip")


def test_a_zip_bomb(refused: Refused, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in (layout.MANIFEST, layout.CRATE):
            bomb.writestr(name, bytes(50 << 20))
    assert "is compressed, which members of an archive never are" in refused(tmp_path / "bomb.zip")


@pytest.mark.parametrize("name", [layout.MANIFEST, layout.CRATE])
def test_a_description_too_large_to_be_believed(
    refused: Refused, file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(opened, "LARGE_TEXT", 1 << 20)
    contents = tamper.load(file)
    contents[name] = bytes(2 << 20)
    tamper.store(file, contents)
    assert f"its {name} is larger than any that is believed" in refused(file)


@pytest.mark.parametrize("suffix", ["summary.json", "windows.csv"])
def test_a_record_too_large_to_be_believed(
    refused: Refused, file: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(opened, "LARGE_RECORD", 1 << 20)
    name = f"results/small/runs/mnist_cnn/jax-jit/1x1/seed-0/{suffix}"
    contents = tamper.load(file) | {name: bytes(2 << 20), "source/large.json": bytes(2 << 20)}
    tamper.store(file, contents)
    assert f"{name} has 2 MiB, more than the 1 MiB that are believed" in refused(file)


def test_a_directory_too_large_to_be_believed(refused: Refused, tmp_path: Path) -> None:
    size, ends = (
        1 << 40,
        container.END64_FORM.size + container.LOCATOR64_FORM.size + container.END_FORM.size,
    )
    fields = (container.END64, 44, container.UNIX | 45, 45, 0, 0, 1, 1, size - ends, 0)
    end = container.END64_FORM.pack(*fields)
    end += container.LOCATOR64_FORM.pack(container.LOCATOR64, 0, size - ends, 1)
    end += container.END_FORM.pack(container.END, 0, 0, 0xFFFF, 0xFFFF, LIMIT, LIMIT, 0)
    with open(tmp_path / "sparse.zip", "wb") as stream:
        stream.seek(size - len(end))
        stream.write(end)
    assert "more than are believed" in refused(tmp_path / "sparse.zip")


def test_a_member_that_says_it_is_larger_than_the_file(
    refused: Refused, file: Path, tmp_path: Path
) -> None:
    content = bytearray(file.read_bytes())
    with open(file, "rb") as stream:
        place = list(scan.Reader(stream).members.values())[-1].end
    for at in (18, 22):
        content[at : at + 4] = (0x7FFFFFFF).to_bytes(4, "little")
    for at in (place + 20, place + 24):
        content[at : at + 4] = (0x7FFFFFFF).to_bytes(4, "little")
    file.write_bytes(bytes(content))
    refused(file)


def test_a_bomb_within_a_record(file: Path) -> None:
    packed = io.BytesIO()
    np.savez_compressed(packed, loss=np.zeros(30_000_000), checksum=np.zeros(3, np.uint32))
    name = "results/small/runs/mnist_cnn/jax-jit/1x1/seed-0/steps.npz"
    tamper.forge(file, lambda contents: contents.update({name: packed.getvalue()}))
    assert any("would unfold to" in problem for problem in wrong(verify.verify(file)))


def test_a_pickle_within_a_record_is_not_opened(file: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    packed = io.BytesIO()
    evil = np.array([Hostile()], dtype=object)
    np.savez(packed, loss=evil, checksum=evil)
    top = "results/small/"
    names = [
        f"{top}runs/mnist_cnn/jax-jit/1x1/seed-0/steps.npz",
        f"{top}parity/mnist_cnn/jax-jit.npz",
    ]
    tamper.forge(file, lambda contents: contents.update(dict.fromkeys(names, packed.getvalue())))
    found = wrong(verify.verify(file))
    assert any("steps.npz: not readable" in problem for problem in found)
    assert any("parity/mnist_cnn" in problem for problem in found)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"[" * 100_000, b'{"study": "small"}'])
def test_records_that_are_no_records(file: Path, content: bytes) -> None:
    run = "results/small/runs/mnist_cnn/jax-jit/1x1/seed-0/"
    names = [f"{run}summary.json", f"{run}run.json", "results/small/report/report.json"]
    tamper.forge(file, lambda contents: contents.update(dict.fromkeys(names, content)))
    assert wrong(verify.verify(file))


def test_a_config_that_is_none(refused: Refused, file: Path, tmp_path: Path) -> None:
    name = "results/small/study.json"
    tamper.forge(file, lambda contents: contents.update({name: b'{"study": "small"}'}))
    assert "not the config of a study" in refused(file)


def test_a_config_of_more_runs_than_any_memory_holds(refused: Refused, file: Path) -> None:
    def change(told: dict) -> None:
        told.update(seeds=list(range(2000)), scales=[f"{n}x1" for n in range(1, 2001)])

    name = "results/small/study.json"
    tamper.forge(file, lambda contents: tamper.edit_json(contents, name, change))
    assert "it asks for 8000000 runs, more than the 100000 that are believed" in refused(file)


def test_no_room_for_what_verifying_extracts(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", "2m") as disk:
        monkeypatch.setenv("TMPDIR", str(disk))
        done = lockstep("verify", file, check=False)
        assert done.returncode == 2
        assert "are to be written" in done.stderr and done.stderr.count("\n") == 1
        assert list(disk.iterdir()) == []


LINKS = {
    "../../outside": "a link out of its folder",
    "/etc/passwd": "a link out of its folder",
    "workflow/../../outside": "a link out of its folder",
    "": "a link to no name",
    "a\0b": "a link to no name",
    "x" * 4096: "too long for a link",
}


def of(path: Path, stream: BinaryIO, contents: Contents, **notes: object) -> opened.Opened:
    """An archive of these files and nothing else, open."""
    tamper.store(path, contents)
    told = {"files": listed(contents, **notes)}
    return opened.Opened(path=path, reader=scan.Reader(stream), manifest=told, checks=[])


@pytest.mark.parametrize("target", LINKS, ids=range(len(LINKS)))
def test_links_that_cannot_be_made_are_one_line(tmp_path: Path, target: str) -> None:
    path, folder = tmp_path / "x.zip", tmp_path / "folder"
    path.touch()
    folder.mkdir()
    with open(path, "rb") as stream, pytest.raises(UserError, match=LINKS[target]):
        archive = of(path, stream, {"source/slurm": target.encode()}, link=True)
        opened.extract(archive, bool, folder)
    assert not any(path.is_symlink() for path in folder.rglob("*"))


@pytest.mark.parametrize("note", ["link", "executable"])
@pytest.mark.parametrize("name", ["results/small/study.json", layout.CRATE, "README.md"])
def test_only_files_of_the_source_are_links_or_executed(file: Path, name: str, note: str) -> None:
    def change(told: dict) -> None:
        told["files"][name][note] = True

    tamper.forge(file, lambda contents: tamper.edit_json(contents, layout.MANIFEST, change))
    says = f"manifest.json: {name} is marked as {note}, which only a file of source/ can be"
    assert wrong(verify.verify(file)) == [says]


def test_a_config_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "results" / "small" / "study.json").mkdir(parents=True)
    with pytest.raises(UserError, match=r"study\.json is not the config of a study"):
        settings.study_in(tmp_path, "small")


# While it is read -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", [(opened, "_write"), (Path, "mkdir")])
@pytest.mark.parametrize("number", files.FULL)
def test_a_disk_that_fills_while_it_is_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, where: tuple[object, str]
) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*where, full)
    path = tmp_path / "x.zip"
    path.touch()
    with open(path, "rb") as stream, pytest.raises(UserError, match="cannot be written, "):
        opened.extract(of(path, stream, {"a": b"content"}), bool, tmp_path)


def test_an_archive_that_becomes_shorter_is_one_line(file: Path) -> None:
    says = "the file ends within it; is it being written"
    with pytest.raises(UserError, match=says), verify.reading(file) as stream:
        archive = opened.read(file, stream)
        os.truncate(file, file.stat().st_size // 2)
        verify.checked(archive)


def test_what_changes_after_it_was_verified_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.touch()
    with open(path, "rb") as stream:
        archive = of(path, stream, {"source/a": b"content"})
        tamper.flip(path, archive.reader.members["source/a"].data, 1)
        with pytest.raises(UserError, match="source/a: is not what the manifest says"):
            opened.extract(archive, bool, tmp_path)
