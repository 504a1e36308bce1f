"""Reads a zip file of the canonical form, and says of every byte that is not what it must be."""

import os
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from lockstep.archive import container
from lockstep.archive.container import (
    CENTRAL,
    CHUNK,
    COUNT_LIMIT,
    END,
    END64,
    LIMIT,
    LOCAL,
    Malformed,
    Member,
    central_header,
    directory,
    local_header,
)

DIFFERS = "it is not what it must be"
LARGEST_DIRECTORY = 1 << 26  # of hundreds of thousands of members; read at once


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
        except (Malformed, struct.error) as problem:
            # A damaged directory: the members' own headers say the same.
            try:
                found = self._by_headers()
            except (Malformed, struct.error) as other:
                raise Malformed(f"{problem}; {other}") from None
        self.members = {member.name: member for member in found}
        for member in found:
            header = local_header(member)
            actual = self.at(member.start, len(header))
            what = "its header is not what its line says (in the directory)"
            self._compare(member.name, member.start, actual, header, what)
        end = found[-1].end if found else 0
        rest = self.at(end, self.size - end)
        place = 0
        for member in found:
            line = central_header(member)
            actual = rest[place : place + len(line)]
            self._compare(f"{member.name} (in the directory)", end + place, actual, line)
            place += len(line)
        expected = directory(found)[place:]
        self._compare("the end of the file", end + place, rest[place:], expected)

    def _compare(
        self, name: str, offset: int, actual: bytes, expected: bytes, says: str = DIFFERS
    ) -> None:
        if actual != expected:
            differ = (k for k, (a, b) in enumerate(zip(actual, expected)) if a != b)
            place = offset + next(differ, min(len(actual), len(expected)))
            self.flaws.append((name, f"{says}, byte {place}"))

    def _by_directory(self) -> list[Member]:
        tail = self.at(max(0, self.size - container.END_FORM.size), container.END_FORM.size)
        if len(tail) < container.END_FORM.size or not tail.startswith(END):
            raise Malformed("it does not end as a zip file does")
        _, _, _, _, count, size, start, _ = container.END_FORM.unpack(tail)
        place = (
            self.size
            - container.END_FORM.size
            - container.LOCATOR64_FORM.size
            - container.END64_FORM.size
        )
        wide = self.at(place, container.END64_FORM.size) if place > 0 else b""
        if LIMIT in (size, start) or count == COUNT_LIMIT:
            if not wide.startswith(END64):
                raise Malformed("its end does not say where the directory is")
            *_, count, size, start = container.END64_FORM.unpack(wide)
        if start + size > self.size:
            raise Malformed("its directory would lie outside of it")
        if size > LARGEST_DIRECTORY:
            raise Malformed(f"its directory would have {size} bytes, more than are believed")
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
        return _distinct(members)

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
        return _distinct(members)

    def _local(self, offset: int) -> Member:
        header = self.at(offset, container.LOCAL_FORM.size)
        if len(header) < container.LOCAL_FORM.size:
            raise Malformed(f"the file ends within a header, byte {offset}")
        _, _, flags, method, _, _, crc, packed, size, length, more = container.LOCAL_FORM.unpack(
            header
        )
        rest = self.at(offset + container.LOCAL_FORM.size, length + more)
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


def _distinct(members: list[Member]) -> list[Member]:
    seen: set[str] = set()
    for member in members:
        if member.name in seen:
            raise Malformed(f"{member.name}: is in the file twice")
        seen.add(member.name)
    return members


def _central(central: bytes, offset: int) -> tuple[Member, int]:
    if (
        len(central) - offset < container.CENTRAL_FORM.size
        or central[offset : offset + 4] != CENTRAL
    ):
        raise Malformed("its directory is damaged")
    (_, _, _, flags, method, _, _, crc, packed, size, length, more, comment, _, _, _, start) = (
        container.CENTRAL_FORM.unpack_from(central, offset)
    )
    behind = offset + container.CENTRAL_FORM.size
    rest = central[behind : behind + length + more + comment]
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
        behind + length + more + comment,
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
