"""The SIF file format, as far as it takes to make one that depends on its content alone.

A SIF is a header, a table of descriptors, and the objects they describe. Before 1.5 Apptainer
gives it a random identifier and the time of day; `normalise` writes the same objects without.
The layout is that of github.com/apptainer/sif (pkg/sif/sif.go).
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lockstep.errors import UserError

HEADER = struct.Struct("<32s10s3s3s16sqqqqqqqq")
DESCRIPTOR = struct.Struct("<i?IIIqqqqqqq128s384s")
MAGIC = b"SIF_MAGIC\0"
DEFINITION, PARTITION = 0x4001, 0x4004
TABLE = 4096
SLOTS = 48
ALIGNMENT = 4096
CHUNK = 1 << 22
EDGE = 1 << 20  # bytes at both ends that a fingerprint reads


@dataclass(frozen=True, kw_only=True)
class Part:
    """An object of a SIF: its kind, where its bytes lie, and its descriptor's free fields."""

    kind: int
    group: int
    offset: int
    size: int
    name: bytes
    extra: bytes


def parts(path: Path) -> list[Part]:
    """Return the objects of a SIF.

    Raises:
        UserError: the file is no SIF, or ends before its last object does.
    """
    length = path.stat().st_size
    with open(path, "rb") as stream:
        head = stream.read(HEADER.size)
        if len(head) < HEADER.size or HEADER.unpack(head)[1] != MAGIC:
            raise UserError(f"{path}: not a SIF image")
        total, start = HEADER.unpack(head)[8:10]
        if not 0 < total <= 4096:
            raise UserError(f"{path}: a damaged SIF image ({total} descriptors)")
        stream.seek(start)
        table = stream.read(total * DESCRIPTOR.size)
    found = []
    for row in range(len(table) // DESCRIPTOR.size):
        fields = DESCRIPTOR.unpack_from(table, row * DESCRIPTOR.size)
        kind, used, _, group, _, offset, size = fields[:7]
        if used:
            found.append(
                Part(
                    kind=kind,
                    group=group,
                    offset=offset,
                    size=size,
                    name=fields[12],
                    extra=fields[13],
                )
            )
    if not found or max(part.offset + part.size for part in found) > length:
        raise UserError(f"{path}: a damaged SIF image (it ends too early)")
    return found


def partition(path: Path) -> Part:
    """Return the root file system of a SIF."""
    for part in parts(path):
        if part.kind == PARTITION:
            return part
    raise UserError(f"{path}: a SIF image without a file system")


def normalise(source: Path, target: Path, *, epoch: int) -> tuple[str, str]:
    """Write the definition and the root file system of a SIF as a SIF that holds nothing else.

    Returns:
        sha256 (hex) of the new SIF, and of its root file system.
    """
    with open(source, "rb") as stream:
        head = HEADER.unpack(stream.read(HEADER.size))
    kept = [part for part in parts(source) if part.kind in (DEFINITION, PARTITION)]
    offset = TABLE + SLOTS * DESCRIPTOR.size
    data_start, placed = offset, []
    for part in kept:
        aligned = -(-offset // ALIGNMENT) * ALIGNMENT if part.kind == PARTITION else offset
        padded = aligned + part.size - offset
        placed.append((part, aligned, padded))
        offset = aligned + part.size
    table = b"".join(
        DESCRIPTOR.pack(
            part.kind, True, number, part.group, 0, aligned, part.size, padded,
            epoch, epoch, 0, 0, part.name, part.extra,
        )
        for number, (part, aligned, padded) in enumerate(placed, start=1)
    )  # fmt: skip
    header = HEADER.pack(
        head[0], MAGIC, head[2], head[3], bytes(16), epoch, epoch,
        SLOTS - len(kept), SLOTS, TABLE, SLOTS * DESCRIPTOR.size, data_start, offset - data_start,
    )  # fmt: skip
    whole, root = hashlib.sha256(), hashlib.sha256()
    with open(target, "wb") as out:

        def write(chunk: bytes) -> None:
            out.write(chunk)
            whole.update(chunk)

        write(header.ljust(TABLE, b"\0") + table)
        for part, aligned, _ in placed:
            write(bytes(aligned - out.tell()))
            for chunk in content(source, part):
                write(chunk)
                if part.kind == PARTITION:
                    root.update(chunk)
        out.flush()
        os.fsync(out.fileno())
    return whole.hexdigest(), root.hexdigest()


def content(path: Path, part: Part) -> Iterator[bytes]:
    """Yield an object's bytes."""
    with open(path, "rb") as stream:
        stream.seek(part.offset)
        left = part.size
        while left:
            chunk = stream.read(min(CHUNK, left))
            if not chunk:
                raise UserError(f"{path}: a damaged SIF image (it ends too early)")
            left -= len(chunk)
            yield chunk


def root_sha256(path: Path) -> str:
    """Return the sha256 (hex) of the root file system of a SIF."""
    total = hashlib.sha256()
    for chunk in content(path, partition(path)):
        total.update(chunk)
    return total.hexdigest()


def fingerprint(path: Path) -> str:
    """Return a hash of a large file's size and ends, in milliseconds instead of seconds.

    The tables of a squashfs lie at its end and hold the size of every compressed block, so an
    image with other content has another fingerprint. It finds a changed or cut file; flipped
    bits in the middle only its sha256 finds.

    Raises:
        UserError: there is no such file.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as stream:
            total = hashlib.sha256(f"{size}\n".encode())
            total.update(stream.read(EDGE))
            stream.seek(max(0, size - EDGE))
            total.update(stream.read(EDGE))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such image") from error
    return total.hexdigest()
