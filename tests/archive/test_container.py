"""The zip file's form: written so that any program reads it, read so that no byte can hide."""

import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from lockstep.archive import container, scan
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
            reader = scan.Reader(stream)
        except container.Malformed as problem:
            return [str(problem)]
        found = [f"{name}: {why}" for name, why in reader.flaws]
        for name, member in reader.members.items():
            if zlib.crc32(reader.bytes_of(name)) != member.crc:
                found.append(f"{name}: content")
        return found


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


def test_members_and_offsets_beyond_four_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.zip"
    first = container.Member(name="large", size=5 << 30, crc=0, start=0)
    content = b"behind it"
    second = container.Member(
        name="second", size=len(content), crc=zlib.crc32(content), start=first.end
    )
    with open(path, "wb") as stream:  # the large one is a hole in the file
        stream.write(container.local_header(first))
        stream.seek(first.end)
        stream.write(container.local_header(second) + content)
        stream.write(container.directory([first, second]))
    with open(path, "rb") as stream:
        reader = scan.Reader(stream)
        assert reader.flaws == []
        assert list(reader.members.values()) == [first, second]
        assert reader.bytes_of("second") == content
    with zipfile.ZipFile(path) as file:
        assert [info.file_size for info in file.infolist()] == [5 << 30, len(content)]
        assert file.read("second") == content


def test_more_members_than_sixteen_bits_count(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    tamper.store(path, {f"{number:06d}": b"" for number in range(70_000)})
    assert problems(path) == []
    with zipfile.ZipFile(path) as file:
        assert len(file.infolist()) == 70_000


def test_contradicting_sizes_are_refused(small: Path) -> None:
    content = bytearray(small.read_bytes())
    with open(small, "rb") as stream:
        member = scan.Reader(stream).members["folder/b.bin"]
    struct.pack_into("<I", content, member.start + 18, 0x7FFFFFFF)
    small.write_bytes(bytes(content))
    assert any("folder/b.bin" in problem for problem in problems(small))
