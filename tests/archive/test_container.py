"""The zip file's form: written so that any program reads it, read so that no byte can hide."""

import io
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import pytest

from lockstep.archive import zip_container
from tests.archive import tamper

SMALL = {"a.txt": b"first\n", "folder/b.bin": bytes(range(40)), "ü.txt": b"", "c": b"last"}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    tamper.store(tmp_path / "small.zip", SMALL)
    return tmp_path / "small.zip"


def problems(path: Path, contents: dict[str, bytes] = SMALL) -> list[str]:
    """What is wrong with a file's form, or with its members if their hashes are known."""
    with open(path, "rb") as stream:
        try:
            reader = zip_container.Reader(stream)
            held = {name: b"".join(reader.pieces(name)) for name in reader.sizes}
        except zip_container.Damaged as problem:
            return [str(problem)]
        flaws = [f"{name}: {why}" for name, why in reader.flaws]
        return flaws + [name for name in {*held, *contents} if held.get(name) != contents.get(name)]


def test_what_is_written_is_read(small: Path) -> None:
    assert problems(small) == []
    with zipfile.ZipFile(small) as file:
        assert file.testzip() is None
        assert {info.filename: file.read(info) for info in file.infolist()} == SMALL
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}


TRICKS = {
    "a comment of the file": lambda c: c[:-2] + b"\x02\x00hi",
    "a flag of a member": lambda c: c.replace(b"PK\3\4\x14\0\0\0", b"PK\3\4\x14\0\x08\0", 1),
    "other rights": lambda c: c.replace(b"\0\0\xa4\x81", b"\0\0\xff\x81", 1),
    "a link": lambda c: c.replace(b"\0\0\xa4\x81", b"\0\0\xff\xa1", 1),
    "a size in the header": lambda c: c[:18] + b"\xff\xff\xff\x7f" + c[22:],
    "a file before it": lambda c: b"#!/bin/sh\n" + c,
    "the directory twice": lambda c: c + c[c.index(b"PK\1\2") :],
}
"""What programs read in different ways, and what no single changed byte makes."""


def changed(whole: bytes) -> Iterator[bytes]:
    """Yield a file with each byte changed, cut off there, or with one more; and with each trick."""
    for place in range(len(whole)):
        for bits in (0x01, 0x80, 0xFF):
            yield whole[:place] + bytes([whole[place] ^ bits]) + whole[place + 1 :]
        yield whole[:place]
        yield whole[:place] + b"\0" + whole[place:]
    yield whole + b"\0"
    yield from (trick(whole) for trick in TRICKS.values())


def test_every_byte_counts(small: Path) -> None:
    whole = small.read_bytes()
    for content in changed(whole):
        assert content != whole
        small.write_bytes(content)
        assert problems(small), content


def test_members_of_another_form_are_found(tmp_path: Path) -> None:
    """Named twice, compressed, or written by another program."""
    path, date = tmp_path / "x.zip", (1980, 1, 1, 0, 0, 0)
    for method, names, when in (
        (zipfile.ZIP_STORED, "aa", date),
        (zipfile.ZIP_DEFLATED, "ab", date),
        (zipfile.ZIP_STORED, "ab", (2026, 1, 1, 0, 0, 0)),
    ):
        warned = pytest.warns() if names == "aa" else nullcontext()
        with zipfile.ZipFile(path, "w", method) as file, warned:
            for name in names:
                info = zipfile.ZipInfo(name, when)
                info.compress_type, info.external_attr = method, zip_container.REGULAR
                file.writestr(info, b"x" * 1000)
        assert problems(path, dict.fromkeys(names, b"x" * 1000))


@pytest.mark.slow
def test_members_and_offsets_beyond_four_gigabytes(tmp_path: Path) -> None:
    path, hole, behind = tmp_path / "large.zip", bytes(1 << 20), b"behind it"
    with open(path, "wb") as stream, zip_container.Writer(Sparse(stream)) as writer:
        writer.add("large", (hole for _ in range(5 << 10)), 5 << 30)
        writer.add("second", [behind], len(behind))
    with open(path, "rb") as stream:
        reader = zip_container.Reader(stream)
        assert reader.flaws == []
        assert reader.sizes == {"large": 5 << 30, "second": len(behind)}
        assert b"".join(reader.pieces("second")) == behind
    with zipfile.ZipFile(path) as file:
        assert file.read("second") == behind


class Sparse(io.RawIOBase):
    """A file in which zeros take no room."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream, self.tell, self.seek = stream, stream.tell, stream.seek

    def seekable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if len(data) == 1 << 20:
            self.stream.seek(len(data), 1)
            return len(data)
        return self.stream.write(data)


def test_more_members_than_sixteen_bits_count(tmp_path: Path) -> None:
    path, many = tmp_path / "many.zip", {f"{number:06d}": b"" for number in range(70_000)}
    tamper.store(path, many)
    assert problems(path, many) == []
    with zipfile.ZipFile(path) as file:
        assert len(file.infolist()) == 70_000
