"""Files that are no archives, or hostile ones: one clear line, status 2, nothing left behind."""

import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lockstep.__main__ import main
from lockstep.archive import archive_reader, layout, verify
from lockstep.errors import UserError
from tests.archive import tamper

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


def test_what_is_no_archive(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert "no such file" in refused(tmp_path / "none.zip")
    assert "not an archive of Lockstep" in refused(tmp_path / "folder")
    assert "cannot be read, file name too long" in refused(tmp_path / ("x" * 300))
    file = tmp_path / "x.zip"
    for content in (b"", b"PK", b"no zip at all" * 100):
        file.write_bytes(content)
        assert "not a whole zip file" in refused(file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr(layout.HASHES, bytes(50 << 20))
    assert "has 50.0 MiB, more than the 16 MiB that are read" in refused(file)
    with zipfile.ZipFile(file, "w") as other:
        other.writestr("a\x1b[2Jb", bytes(1000))  # a command to the terminal
    assert r"a\x1b[2Jb" in refused(file)
    tamper.store(file, {"a.txt": b"hello"})
    assert "not an archive of Lockstep, it holds no manifest-sha256.txt" in refused(file)
    told = {"schema": "lockstep-archive/1", "lockstep": "0.1.0", "files": {}}
    tamper.store(file, {"manifest.json": json.dumps(told).encode(), layout.CRATE: b"{}"})
    says = "was made by Lockstep 0.1.0, in the former format lockstep-archive/1; verify it"
    assert says in refused(file)


HOSTILE = (
    "../outside", "/etc/passwd", "a/../../outside", "a//b", "a/./b", "C:/windows", "a\\..\\b",
    "results/", "a\nb", "ARCHIVE.json", "a\x9bb", "archive.json/inside",
)  # fmt: skip
LINES = (b"no hash", b"0" * 64 + b" one space", b"\xff")
FIELDS = {
    "links.0": {"links": ["results/small/study.json"]},  # only files of the source are links,
    "executable.0": {"executable": ["README.md"]},  # or are executed
    "missing.0": {"missing": [[]]},
    "include.data": {"include": {"data": 1}},
    "source.commit": {"source": {}},
    "study": {"study": "../x"},
}
OLDER = "has schema 'lockstep-archive/3'; this version of Lockstep reads lockstep-archive/2"


def told(fields: dict) -> Callable[[bytes], bytes]:
    return lambda old: json.dumps({**json.loads(old), **fields}).encode()


BAD = [
    *((name, lambda old: b"hello", "it was not opened") for name in HOSTILE),
    *((layout.HASHES, lambda old, more=line: old + more + b"\n", layout.HASHES) for line in LINES),
    *((layout.ABOUT, told(fields), f"field '{field}' is missing or not of its kind")
      for field, fields in FIELDS.items()),
    (layout.ABOUT, told({"schema": "lockstep-archive/3"}), OLDER),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "says"), BAD)
def test_hostile_names_and_lists_of_another_shape(
    refused: Refused, file: Path, name: str, content: Callable[[bytes], bytes], says: str
) -> None:
    contents = tamper.load(file)
    contents[name] = content(contents.get(name, b""))
    tamper.store(file, contents)
    assert says in refused(file)


RECORD = "results/small/blocks/mnist_cnn/jax-jit/1x1/seed-0.json"
LARGEST = {layout.HASHES: 16, RECORD: 4, "results/small/report/report.json": 64}


def test_what_is_too_large_to_be_read() -> None:
    for name, limit in LARGEST.items():
        says = f"has {limit}.1 MiB, more than the {limit} MiB that are read"
        assert layout.too_large(name, (limit << 20) + 100_000) == says
        assert layout.too_large(name, limit << 20) is None
    assert layout.too_large("source/large.json", 1 << 30) is None


# While it is read -----------------------------------------------------------------------------


def test_an_archive_that_becomes_shorter_is_one_line(file: Path) -> None:
    says = "the file ends within it; is it being written"
    with pytest.raises(UserError, match=says), archive_reader.opened(file) as archive:
        os.truncate(file, file.stat().st_size // 2)
        list(verify.verified(archive))


# One leads to a place in its folder by its letters, out of it where its first part is a link.
OUTSIDE = ("../../outside", "/etc/passwd", "", "a\0b", "link/../outside")
LINKS = dict.fromkeys(OUTSIDE, "a link out of its folder")
LINKS["x" * 4096] = "cannot be written, file name too long"


@pytest.mark.parametrize("target", LINKS, ids=range(len(LINKS)))
def test_links_that_cannot_be_made_are_one_line(file: Path, tmp_path: Path, target: str) -> None:
    tamper.forge(file, lambda contents: contents.update({"source/slurm": target.encode()}))
    with archive_reader.opened(file) as archive, pytest.raises(UserError, match=LINKS[target]):
        archive_reader.extract(archive, {"source/slurm": "slurm"}, tmp_path / "folder")
    assert not [*(tmp_path / "folder").iterdir()]


def test_what_changes_after_it_was_verified_is_not_used(file: Path, tmp_path: Path) -> None:
    says = "Snakefile was changed after it was verified"
    with archive_reader.opened(file) as archive, pytest.raises(UserError, match=says):
        tamper.flip(file, archive.reader.places["source/Snakefile"], 1)
        archive_reader.extract(archive, {"source/Snakefile": "a"}, tmp_path)
