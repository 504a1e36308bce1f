"""The zip file itself, by the standard library: stored members, a fixed date, one canonical form.

Members are not compressed: their bytes are then the same with every zlib, and no member can unfold
into more than the file holds. Everything else in the file follows from names, sizes and checksums,
so a reader makes all headers again and compares: there is no place for a byte that no member
accounts for, and no header that one program reads in another way than the next.
"""

import bisect
import contextlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

CHUNK = 1 << 20
REGULAR = 0o100644 << 16
LARGEST_DIRECTORY = 1 << 26  # of hundreds of thousands of members; read at once


class Damaged(Exception):
    """Not a zip file of this form, or one that cannot be read; the message says why and where."""


def _info(name: str, size: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, REGULAR
    info.file_size = info.compress_size = size
    return info


class Writer:
    """Writes a zip file of this form to a stream that can seek; closes at the end of a `with`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED)

    def add(self, name: str, pieces: Iterable[bytes], size: int) -> None:
        """Write a member.

        Raises:
            Damaged: the content has another size than was said.
        """
        written = 0
        with self._zip.open(_info(name, size), "w") as member:
            for piece in pieces:
                written += len(piece)
                if written <= size:
                    member.write(piece)
        if written != size:
            raise Damaged(f"{name}: has {written} bytes instead of {size}; it is being written")

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self._zip.fp = None  # else it writes a directory when it is collected
        self._zip.close()


class Reader:
    """An open zip file of this form.

    Attributes:
        sizes: of the members by name, in bytes, in the order in which they lie in the file.
        flaws: headers that are not what they must be, each with the member's name.

    Raises:
        Damaged: it is not a whole zip file, or its members cannot be told apart.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._descriptor = stream.fileno()
        self._size = os.fstat(self._descriptor).st_size
        self._check_directory()
        try:
            with zipfile.ZipFile(stream) as members:
                self._infos = members.infolist()
        except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError) as problem:
            raise Damaged(f"not a whole zip file ({problem})") from problem
        self.sizes = {info.filename: info.file_size for info in self._infos}
        self.flaws = list(self._flaws())
        if len(self.sizes) != len(self._infos):
            raise Damaged("two members have one name")

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a member's content.

        Raises:
            Damaged: the file ends within it, which happens while it is being written.
        """
        offset, end = self._places[name], self._places[name] + self.sizes[name]
        while offset < end:
            piece = self._at(offset, min(CHUNK, end - offset))
            if not piece:
                raise Damaged(f"{name}: the file ends within it; is it being written?")
            yield piece
            offset += len(piece)

    def place(self, name: str) -> int:
        """Return the offset of a member's content."""
        return self._places[name]

    def checksum(self, name: str) -> int:
        """Return the CRC-32 that the directory has of a member."""
        return self._checksums[name]

    def _at(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def _check_directory(self) -> None:
        """Refuse a directory that would fill the memory, before anybody reads it."""
        end = self._at(max(0, self._size - 98), 98)
        claimed = [0]
        if end[-22:-18] == b"PK\5\6":
            claimed.append(struct.unpack("<I", end[-10:-6])[0] % 0xFFFFFFFF)
        if end[-42:-38] == b"PK\6\7" and len(end) == 98:
            claimed.append(struct.unpack("<Q", end[40:48])[0])
        if max(claimed) > LARGEST_DIRECTORY:
            raise Damaged(f"its directory would have {max(claimed)} bytes, more than are read")

    def _flaws(self) -> Iterator[tuple[str, str]]:
        """Yield headers that differ from those that writing the same members would make."""
        self._places: dict[str, int] = {}
        self._checksums: dict[str, int] = {}
        expected, place = [], 0
        for found in self._infos:
            name, size = found.filename, found.file_size
            info = _info(name, size)
            info.CRC, info.header_offset = found.CRC, place
            try:
                header = info.FileHeader(zip64=size * 1.05 > zipfile.ZIP64_LIMIT)
            except (ValueError, UnicodeError, struct.error) as problem:
                raise Damaged(f"{name!r}: impossible header ({problem})") from problem
            if self._at(place, len(header)) != header:
                yield name, f"its header is not what it must be, from byte {place} on"
            self._places[name], self._checksums[name] = place + len(header), found.CRC
            place += len(header) + size
            if place > self._size:
                raise Damaged(f"the file ends within {name} (cut short)")
            expected.append(info)
        rest = self._at(place, min(self._size - place, LARGEST_DIRECTORY + CHUNK))
        directory = _directory(expected, place)
        if rest != directory:
            same = next((k for k, (a, b) in enumerate(zip(rest, directory)) if a != b), None)
            same = min(len(rest), len(directory)) if same is None else same
            yield _owner(expected, place, same), f"is not what it must be, byte {place + same}"


class _From(io.BytesIO):
    """A stream whose first byte is said to be at a place."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start

    def tell(self) -> int:
        return super().tell() + self.start

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return super().seek(offset - self.start if whence == io.SEEK_SET else offset, whence)


def _directory(infos: Sequence[zipfile.ZipInfo], start: int) -> bytes:
    """Return what stands behind the last member."""
    stream = _From(start)
    with contextlib.closing(zipfile.ZipFile(stream, "w")) as members:
        members.filelist = list(infos)
    return stream.getvalue()


def _owner(infos: Sequence[zipfile.ZipInfo], start: int, place: int) -> str:
    """Return whose line of the directory a byte belongs to."""
    ends = range(1, len(infos) + 1)
    end = len(_directory([], start))
    line = bisect.bisect_right(ends, place, key=lambda n: len(_directory(infos[:n], start)) - end)
    return f"{infos[line].filename} (in the directory)" if line < len(infos) else "its end"


def crc32(pieces: Iterable[bytes]) -> int:
    """Return the CRC-32 of a content."""
    total = 0
    for piece in pieces:
        total = zlib.crc32(piece, total)
    return total
