"""The zip file's form: written so that any program reads it, read so that no byte can hide."""

import io
import struct
import zipfile
import zlib
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


def problems(path: Path) -> list[str]:
    """What is wrong with a file's form or with its members' checksums."""
    with open(path, "rb") as stream:
        try:
            reader = zip_container.Reader(stream)
        except zip_container.Damaged as problem:
            return [str(problem)]
        wrong = [n for n in reader.sizes
                 if zlib.crc32(b"".join(reader.pieces(n))) != reader.checksum(n)]  # fmt: skip
        return [*(f"{name}: {why}" for name, why in reader.flaws), *wrong]


def test_what_is_written_is_read(small: Path) -> None:
    assert tamper.load(small) == SMALL
    assert problems(small) == []
    with zipfile.ZipFile(small) as file:
        assert file.testzip() is None
        assert {info.filename: file.read(info) for info in file.infolist()} == SMALL
        assert {info.date_time for info in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}


@pytest.mark.parametrize("bits", [0x01, 0x80, 0xFF])
def test_every_single_byte_counts(small: Path, bits: int) -> None:
    for place in range(small.stat().st_size):
        tamper.flip(small, place, bits)
        assert problems(small), place
        tamper.flip(small, place, bits)


def test_every_truncation_is_found(small: Path) -> None:
    whole = small.read_bytes()
    for size in range(len(whole)):
        small.write_bytes(whole[:size])
        assert problems(small), size


def test_inserted_bytes_are_found_everywhere(small: Path) -> None:
    whole = small.read_bytes()
    for place in range(len(whole) + 1):
        small.write_bytes(whole[:place] + b"\0" + whole[place:])
        assert problems(small), place


def test_an_archive_of_another_program_is_not_one_of_ours(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        for name, content in SMALL.items():
            file.writestr(name, content)
    assert problems(tmp_path / "other.zip")


TRICKS = {
    "a comment of the file": lambda c: c[:-2] + b"\x02\x00hi",
    "a flag of a member": lambda c: c.replace(b"PK\3\4\x14\0\0\0", b"PK\3\4\x14\0\x08\0", 1),
    "a date of a member": lambda c: c.replace(b"\x21\0", b"\x22\0", 1),
    "other rights": lambda c: c.replace(b"\0\0\xa4\x81", b"\0\0\xff\x81", 1),
    "a link": lambda c: c.replace(b"\0\0\xa4\x81", b"\0\0\xff\xa1", 1),
    "another name in the header": lambda c: c.replace(b"a.txt", b"b.txt", 1),
    "a file before it": lambda c: b"#!/bin/sh\n" + c,
    "the directory twice": lambda c: c + c[c.index(b"PK\1\2") :],
}
"""What programs read in different ways."""


@pytest.mark.parametrize("trick", TRICKS)
def test_what_programs_read_differently_is_found(small: Path, trick: str) -> None:
    whole = small.read_bytes()
    changed = TRICKS[trick](whole)
    assert changed != whole
    small.write_bytes(changed)
    assert problems(small)


def test_a_member_twice_and_a_compressed_member_are_found(tmp_path: Path) -> None:
    for method, names in ((zipfile.ZIP_STORED, "aa"), (zipfile.ZIP_DEFLATED, "ab")):
        path = tmp_path / f"{names}.zip"
        with (
            zipfile.ZipFile(path, "w", method) as file,
            pytest.warns() if names == "aa" else nullcontext(),
        ):
            for name in names:
                info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                info.compress_type, info.external_attr = method, zip_container.REGULAR
                file.writestr(info, b"x" * 1000)
        assert problems(path)


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
    path = tmp_path / "many.zip"
    tamper.store(path, {f"{number:06d}": b"" for number in range(70_000)})
    assert problems(path) == []
    with zipfile.ZipFile(path) as file:
        assert len(file.infolist()) == 70_000


def test_a_contradicting_size_is_named(small: Path) -> None:
    content = bytearray(small.read_bytes())
    start = content.index(b"folder/b.bin") - 30
    struct.pack_into("<I", content, start + 18, 0x7FFFFFFF)
    small.write_bytes(bytes(content))
    assert any("folder/b.bin" in problem for problem in problems(small))
