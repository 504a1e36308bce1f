"""The zip file itself: one canonical form, written as a stream and checked byte by byte.

Members are stored, not compressed: their bytes are then the same with every zlib, what is checked
is what is stored, and no member can unfold into more than the file holds. Everything else in the
file follows from names, sizes and checksums, so a reader makes it anew and compares: no byte can
change unseen, and there is no place for bytes that no member accounts for.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
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
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR64 = struct.Struct("<4sIQI")


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
    fixed = _LOCAL.pack(
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
    fixed = _CENTRAL.pack(
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
        tail = _END64.pack(END64, 44, UNIX | 45, 45, 0, 0, count, count, size, start)
        tail += _LOCATOR64.pack(LOCATOR64, 0, start + size, 1)
    few = min(count, COUNT_LIMIT)
    tail += _END.pack(END, 0, 0, few, few, min(size, LIMIT), min(start, LIMIT), 0)
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


# Reading --------------------------------------------------------------------------------------


class Reader:
    """An open zip file of this form.

    Attributes:
        members: by name, in the order in which they lie in the file.
        flaws: what is wrong with the file outside of contents, each with the member's name.

    Raises:
        Malformed: neither its directory nor its members' headers can be followed.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.descriptor = stream.fileno()
        self.size = os.fstat(self.descriptor).st_size
        self.members: dict[str, Member] = {}
        self.flaws: list[tuple[str, str]] = []
        self._read()

    def at(self, offset: int, size: int) -> bytes:
        """Return bytes of the file, fewer at its end."""
        return os.pread(self.descriptor, size, offset)

    def content(self, member: Member) -> Iterator[bytes]:
        """Yield a member's content in pieces."""
        offset = member.data
        while offset < member.end:
            piece = self.at(offset, min(CHUNK, member.end - offset))
            if not piece:
                raise Malformed(f"{member.name}: the file ends within it")
            yield piece
            offset += len(piece)

    def bytes_of(self, name: str) -> bytes:
        """Return a member's whole content."""
        return b"".join(self.content(self.members[name]))

    def _read(self) -> None:
        try:
            found = self._by_directory()
        except Malformed as problem:
            # A damaged directory: the members' own headers say the same.
            try:
                found = self._by_headers()
            except Malformed as other:
                raise Malformed(f"{problem}; {other}") from None
        for member in found:
            if member.name in self.members:
                raise Malformed(f"{member.name}: is in the file twice")
            self.members[member.name] = member
        for member in found:
            self._compare(member.name, member.start, local_header(member))
        end = found[-1].end if found else 0
        place = end
        for member in found:
            line = central_header(member)
            self._compare(f"{member.name} (in the directory)", place, line)
            place += len(line)
        self._compare("the end of the file", place, directory(found)[place - end :])

    def _compare(self, what: str, offset: int, expected: bytes) -> None:
        actual = self.at(offset, len(expected))
        if actual != expected:
            first = next((k for k, (a, b) in enumerate(zip(actual, expected)) if a != b), None)
            place = offset + (len(actual) if first is None else first)
            self.flaws.append((what, f"its header is not what it must be (byte {place})"))

    def _by_directory(self) -> list[Member]:
        tail = self.at(max(0, self.size - _END.size), _END.size)
        if len(tail) < _END.size or not tail.startswith(END):
            raise Malformed("it does not end as a zip file does")
        _, _, _, _, count, size, start, _ = _END.unpack(tail)
        place = self.size - _END.size - _LOCATOR64.size - _END64.size
        wide = self.at(place, _END64.size) if place > 0 else b""
        if LIMIT in (size, start) or count == COUNT_LIMIT:
            if not wide.startswith(END64):
                raise Malformed("its end does not say where the directory is")
            *_, count, size, start = _END64.unpack(wide)
        if start + size > self.size:
            raise Malformed("its directory would lie outside of it")
        central = self.at(start, size)
        members, offset = [], 0
        while offset < len(central):
            member, offset = _central(central, offset)
            members.append(member)
        if len(members) != count:
            raise Malformed(f"its directory has {len(members)} members instead of {count}")
        self._check_places(members, start)
        if start + len(directory(members)) != self.size:
            raise Malformed("there are bytes that belong to no member")
        return members

    def _by_headers(self) -> list[Member]:
        members: list[Member] = []
        offset = 0
        while self.at(offset, 4) == LOCAL:
            member = self._local(offset)
            if member.end > self.size:
                raise Malformed(f"the file ends within {member.name} (cut short)")
            members.append(member)
            offset = member.end
        what = f"behind {members[-1].name}" if members else "at its beginning"
        if not members:
            raise Malformed("there is no member at its beginning")
        if offset + len(directory(members)) != self.size:
            raise Malformed(
                f"there is neither a member nor a whole directory {what}, byte {offset}"
            )
        return members

    def _local(self, offset: int) -> Member:
        header = self.at(offset, _LOCAL.size)
        if len(header) < _LOCAL.size:
            raise Malformed(f"the file ends within a header, byte {offset}")
        _, _, flags, method, _, _, crc, packed, size, length, more = _LOCAL.unpack(header)
        rest = self.at(offset + _LOCAL.size, length + more)
        name = _name(rest[:length])
        _plain(name, flags, method)
        if size == LIMIT and more == 20:
            packed, size = struct.unpack("<QQ", rest[length + 4 :])
        if packed != size:
            raise Malformed(f"{name}: sizes contradict each other")
        return Member(name=name, size=size, crc=crc, start=offset)

    def _check_places(self, members: Sequence[Member], end: int) -> None:
        place = 0
        for member in members:
            if member.start != place:
                raise Malformed(
                    f"{member.name}: lies at byte {member.start} instead of {place} (members "
                    "overlap, or there are bytes between them)"
                )
            place = member.end
        if place != end:
            raise Malformed(f"{end - place} bytes lie between the last member and the directory")


def _central(central: bytes, offset: int) -> tuple[Member, int]:
    if len(central) - offset < _CENTRAL.size or central[offset : offset + 4] != CENTRAL:
        raise Malformed("its directory is damaged")
    (_, _, _, flags, method, _, _, crc, packed, size, length, more, comment, _, _, _, start) = (
        _CENTRAL.unpack_from(central, offset)
    )
    rest = central[offset + _CENTRAL.size :][: length + more + comment]
    name = _name(rest[:length])
    _plain(name, flags, method)
    if packed != size:
        raise Malformed(f"{name}: sizes contradict each other")
    wide = rest[length + 4 : length + more]
    values = list(struct.unpack(f"<{len(wide) // 8}Q", wide[: len(wide) // 8 * 8]))
    try:
        if size == LIMIT:
            size, _ = values.pop(0), values.pop(0)
        if start == LIMIT:
            start = values.pop(0)
    except IndexError:
        raise Malformed(f"{name}: its size or place is not said") from None
    return (
        Member(name=name, size=size, crc=crc, start=start),
        offset + _CENTRAL.size + length + more + comment,
    )


def _name(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Malformed(f"a name is not UTF-8: {raw[:60]!r}") from None


def _plain(name: str, flags: int, method: int) -> None:
    if method:
        raise Malformed(f"{name}: is compressed, which members of an archive never are")
    if flags & 1:
        raise Malformed(f"{name}: is encrypted")
