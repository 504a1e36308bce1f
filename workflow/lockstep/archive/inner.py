"""Hashes of what is within archived states and shards, read where they lie in the archive."""

import hashlib
import io
import json
import math
from collections.abc import Iterator

import numpy as np

from lockstep.archive.container import CHUNK, Member
from lockstep.archive.scan import Reader

HEADER = 1 << 26
TYPES = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "F16": "<f2",
    "U32": "<u4", "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip
"""From safetensors' names of types to NumPy's."""

ARRAYS = {"images": "|u1", "labels": "<i4"}


def state(reader: Reader, member: Member) -> str:
    """Return `lockstep.workloads.weights.digest` of a safetensors file, without its library.

    Raises:
        ValueError: it is not one.
    """
    size = int.from_bytes(reader.at(member.data, 8), "little")
    if not 0 < size <= min(HEADER, member.size - 8):
        raise ValueError("its header cannot be as long as it says")
    header = json.loads(reader.at(member.data + 8, size))
    header.pop("__metadata__", None)
    start, total = 8 + size, hashlib.sha256()
    for name in sorted(header):
        entry = header[name]
        kind, shape = np.dtype(TYPES[entry["dtype"]]), tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        if end - begin != math.prod(shape) * kind.itemsize:
            raise ValueError(f"{name}: has not the bytes of its shape")
        total.update(f"{name}\0{kind.str}\0{shape or (1,)}\0".encode())
        for piece in _range(reader, member, start + begin, end - begin):
            total.update(piece)
    return total.hexdigest()


def shard(reader: Reader, member: Member) -> str:
    """Return the content of a shard, as `lockstep.datasets.shards.write` does.

    Raises:
        ImportError: h5py is not installed.
        ValueError: it is no shard.
    """
    import h5py

    total = hashlib.sha256()
    with h5py.File(_File(reader, member), "r") as file:
        places = []
        for name, kind in ARRAYS.items():
            array = file[name]
            if array.dtype != np.dtype(kind) or array.id.get_offset() is None:
                raise ValueError(f"{name}: is not as shards have it")
            places.append((array.id.get_offset(), array.nbytes))
    for offset, size in places:
        for piece in _range(reader, member, offset, size):
            total.update(piece)
    return total.hexdigest()


def _range(reader: Reader, member: Member, offset: int, size: int) -> Iterator[bytes]:
    """Yield a part of a member's content, in pieces."""
    if offset < 0 or size < 0 or offset + size > member.size:
        raise ValueError("names bytes that it has not")
    for place in range(offset, offset + size, CHUNK):
        yield reader.at(member.data + place, min(CHUNK, offset + size - place))


class _File(io.RawIOBase):
    """A member as a file to read."""

    def __init__(self, reader: Reader, member: Member) -> None:
        self.reader, self.member, self.place = reader, member, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.member.size}[whence]
        self.place = base + offset
        return self.place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        size = max(0, min(len(buffer), self.member.size - self.place))
        piece = self.reader.at(self.member.data + self.place, size)
        buffer[: len(piece)] = piece
        self.place += len(piece)
        return len(piece)
