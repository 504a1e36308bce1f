"""The zip file itself, by the standard library: stored members, a fixed date, one canonical form.

Members are not compressed: their bytes are then the same with every zlib, and no member can unfold
into more than the file holds. Everything else in the file follows from names, sizes and checksums,
so a reader makes all headers again and compares: there is no place for a byte that no member
accounts for, and no header that one program reads in another way than the next.
"""

import contextlib
import hashlib
import io
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

CHUNK = 1 << 20
REGULAR = 0o100644 << 16


class Damaged(Exception):
    """Not a zip file of this form; the message says why and where."""


def reason(error: OSError) -> str:
    """Return why the system refused, as it stands in the middle of a sentence."""
    return (error.strerror or str(error)).lower()


def _info(name: str, size: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, REGULAR
    info.file_size = info.compress_size = size
    return info


class Writer:
    """Writes a zip file of this form to a stream that can seek; closes at the end of a `with`."""

    def __init__(self, stream: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED)

    def add(self, name: str, pieces: Iterable[bytes], size: int) -> tuple[int, str]:
        """Write a member; returns its size and sha256.

        Args:
            size: about what it will be, in bytes: large members have other headers.
        """
        total, written = hashlib.sha256(), 0
        with self._zip.open(_info(name, size), "w") as member:
            for piece in pieces:
                total.update(piece)
                written += len(piece)
                member.write(piece)
        return written, total.hexdigest()

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
        places, crcs: the offsets of their contents, and their CRC-32 as the directory has it.
        flaws: headers that are not what they must be, each with the member's name.

    Raises:
        Damaged: it is not a whole zip file, or its members cannot be told apart.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._descriptor = stream.fileno()
        self.places: dict[str, int] = {}
        self.crcs: dict[str, int] = {}
        try:
            with zipfile.ZipFile(stream) as members:
                infos = members.infolist()
            self.flaws = list(self._flaws(infos))
        except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError) as problem:
            raise Damaged(f"not a whole zip file ({problem})") from problem
        self.sizes = {info.filename: info.file_size for info in infos}
        if len(self.sizes) != len(infos):
            raise Damaged("not a zip file of this form: two members have one name")

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a member's content.

        Raises:
            Damaged: the file ends within it, as while it is being written.
            OSError: it cannot be read.
        """
        offset, end = self.places[name], self.places[name] + self.sizes[name]
        while offset < end:
            piece = self._at(offset, min(CHUNK, end - offset))
            if not piece:
                raise Damaged(f"{name}: the file ends within it; is it being written?")
            yield piece
            offset += len(piece)

    def _at(self, offset: int, size: int) -> bytes:
        return os.pread(self._descriptor, size, offset)

    def _flaws(self, infos: Sequence[zipfile.ZipInfo]) -> Iterator[tuple[str, str]]:
        """Yield headers that differ from those that writing the same members would make."""
        expected, place = [], 0
        for found in infos:
            info = _info(found.filename, found.file_size)
            info.CRC, info.header_offset = found.CRC, place
            header = info.FileHeader(zip64=info.file_size * 1.05 > zipfile.ZIP64_LIMIT)
            if self._at(place, len(header)) != header:
                yield info.filename, f"its header is not what it must be, from byte {place} on"
            self.places[info.filename] = place + len(header)
            self.crcs[info.filename] = info.CRC
            place += len(header) + info.file_size
            expected.append(info)
        directory = _directory(expected, place)
        if self._at(place, len(directory) + 1) != directory:
            yield "the directory", f"is not what it must be, somewhere from byte {place} on"


def _directory(infos: Sequence[zipfile.ZipInfo], start: int) -> bytes:
    """Return what stands behind the last member."""
    stream = _From(start)
    with contextlib.closing(zipfile.ZipFile(stream, "w")) as members:
        members.filelist = list(infos)
    return stream.getvalue()


class _From(io.BytesIO):
    """A stream whose first byte is said to be at a place."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self.start = start

    def tell(self) -> int:
        return super().tell() + self.start

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return super().seek(offset - self.start if whence == io.SEEK_SET else offset, whence)
