"""The zip file's form: written so that any program reads it, read so that no byte can hide."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

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
    "a link": lambda c: c.replace(b"\0\0\xa4\x81", b"\0\0\xff\xa1", 1),
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


def test_a_name_that_two_members_have_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with open(path, "wb") as stream, zip_container.Writer(stream) as writer, pytest.warns():
        for content in (b"one", b"two"):
            writer.add("a", [content], 3)
    assert problems(path, {"a": b"two"}) == [
        "not a zip file of this form: two members have one name"
    ]


def test_members_and_offsets_beyond_four_gigabytes(tmp_path: Path, monkeypatch) -> None:
    """Which another limit stands for: from there on headers and directory have another form."""
    path, large = tmp_path / "large.zip", {"near": bytes(96), "a": bytes(300), "behind": b"it"}
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100)
    tamper.store(path, large)
    assert problems(path, large) == []
    monkeypatch.undo()
    assert path.read_bytes().count(b"PK\x06\x06") == 1
    with zipfile.ZipFile(path) as file:
        assert {name: file.read(name) for name in file.namelist()} == large
