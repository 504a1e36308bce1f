"""The zip file itself: one canonical form, written as a stream and checked byte by byte.

Members are stored, not compressed: their bytes are then the same with every zlib, what is checked
is what is stored, and no member can unfold into more than the file holds. Everything else in the
file follows from names, sizes and checksums, so a reader makes it anew and compares: no byte can
change unseen, and there is no place for bytes that no member accounts for.
"""

import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

CHUNK = 1 << 20
LIMIT = 0xFFFFFFFF  # sizes and offsets from here on are written in 64 bits
COUNT_LIMIT = 0xFFFF
UTF8 = 0x800
JANUARY_1980 = 33  # the first day that a zip file can name
REGULAR = 0o100644 << 16
UNIX = 3 << 8

LOCAL, CENTRAL, END, END64, LOCATOR64 = (
    b"PK" + pair for pair in (b"\3\4", b"\1\2", b"\5\6", b"\6\6", b"\6\7")
)
LOCAL_FORM = struct.Struct("<4sHHHHHIIIHH")
CENTRAL_FORM = struct.Struct("<4sHHHHHHIIIHHHHHII")
END_FORM = struct.Struct("<4sHHHHIIH")
END64_FORM = struct.Struct("<4sQHHIIQQQQ")
LOCATOR64_FORM = struct.Struct("<4sIQI")


class Malformed(Exception):
    """Not a zip file of this form; the message says what is wrong and where."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One file in the zip file.

    Attributes:
        name: with slashes, relative.
        size: in bytes.
        crc: CRC-32 of the content.
        start: offset of its header.
    """

    name: str
    size: int
    crc: int
    start: int

    @property
    def data(self) -> int:
        """Offset of its content."""
        return self.start + len(local_header(self))

    @property
    def end(self) -> int:
        """Offset behind its content."""
        return self.data + self.size


def local_header(member: Member) -> bytes:
    """Return what stands before a member's content."""
    name = member.name.encode()
    large = member.size >= LIMIT
    extra = struct.pack("<HHQQ", 1, 16, member.size, member.size) if large else b""
    size = LIMIT if large else member.size
    fixed = LOCAL_FORM.pack(
        LOCAL, 45 if large else 20, UTF8, 0, 0, JANUARY_1980, member.crc, size, size,
        len(name), len(extra),
    )  # fmt: skip
    return fixed + name + extra


def central_header(member: Member) -> bytes:
    """Return a member's line in the directory at the end of the file."""
    name = member.name.encode()
    large, far = member.size >= LIMIT, member.start >= LIMIT
    wide = [member.size, member.size] * large + [member.start] * far
    extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    version = 45 if wide else 20
    size, start = (LIMIT if large else member.size), (LIMIT if far else member.start)
    fixed = CENTRAL_FORM.pack(
        CENTRAL, UNIX | version, version, UTF8, 0, 0, JANUARY_1980, member.crc, size, size,
        len(name), len(extra), 0, 0, 0, REGULAR, start,
    )  # fmt: skip
    return fixed + name + extra


def directory(members: Sequence[Member]) -> bytes:
    """Return everything behind the last member's content."""
    start = members[-1].end if members else 0
    central = b"".join(map(central_header, members))
    count, size = len(members), len(central)
    tail = b""
    if count >= COUNT_LIMIT or size >= LIMIT or start >= LIMIT:
        tail = END64_FORM.pack(END64, 44, UNIX | 45, 45, 0, 0, count, count, size, start)
        tail += LOCATOR64_FORM.pack(LOCATOR64, 0, start + size, 1)
    few = min(count, COUNT_LIMIT)
    tail += END_FORM.pack(END, 0, 0, few, few, min(size, LIMIT), min(start, LIMIT), 0)
    return central + tail


class Writer:
    """Writes a zip file of this form to a stream that can seek."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.members: list[Member] = []

    def add(self, name: str, pieces: Iterable[bytes], size: int) -> Member:
        """Write a member; `size` must tell whether it is larger than 4 GiB.

        Raises:
            Malformed: the content has another size than was said.
        """
        start = self.stream.tell()
        planned = Member(name=name, size=size, crc=0, start=start)
        self.stream.write(local_header(planned))
        crc = written = 0
        for piece in pieces:
            crc = zlib.crc32(piece, crc)
            written += len(piece)
            self.stream.write(piece)
        if written != size:
            raise Malformed(f"{name}: has {written} bytes instead of {size}; it is being written")
        member = Member(name=name, size=size, crc=crc, start=start)
        self.stream.seek(start)
        self.stream.write(local_header(member))
        self.stream.seek(member.end)
        self.members.append(member)
        return member

    def close(self) -> None:
        """Write the directory."""
        self.stream.write(directory(self.members))
