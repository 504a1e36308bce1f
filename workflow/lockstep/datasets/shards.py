"""One HDF5 file of examples: uncompressed, contiguous, page-aligned, checksummed by block.

The file is plain HDF5 (`h5dump` and h5py read it). Datasets:

`NAME`             an array, ``(N, …)``; of a ragged one all examples, one after the other
`offsets/NAME`     int64 ``(N + 1,)``: where each example of a ragged array starts and ends
`checksums/NAME`   uint32 ``(blocks,)``: CRC-32 of each block of rows; `checksums/offsets/NAME` of
                   all offsets
`extra/NAME`       bytes that the source gives besides, such as a vocabulary
`originals/name`, `originals/sha256`   of the file that each example was made of, where the source
                   has one file an example

Root attributes: `schema`, `split`, `source`, `origin`, `licence`, `arrays`, `classes` and `options`
(JSON), `content` (sha256 of the arrays' bytes, array by array) and `block_rows`. Texts are UTF-8 of
fixed length: those of variable length lie in a heap without a checksum, where one flipped bit can
keep the HDF5 library busy forever. Everything that the library would choose by time or version is
fixed, so equal input gives equal bytes. Files are opened without locks, which a network file system
may not have.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lockstep.datasets.arrays import Array, Ragged, Stored

SCHEMA = "lockstep-shard/2"
NAME = re.compile("[a-z][a-z0-9_]*")
RESERVED = ("checksums", "extra", "offsets", "originals")
PAGE = 4096
BLOCK_BYTES = 1 << 20
OWN_BLOCK = 1 << 16
"""Bytes from which a row is a block by itself: reading one must not mean to read its neighbours."""


def write(
    path: Path,
    described: Mapping[str, Array],
    arrays: Mapping[str, Stored],
    about: Mapping[str, Any],
    extra: Mapping[str, np.ndarray] | None = None,
) -> str:
    """Write a shard.

    Args:
        path: file to write (not atomic: the caller renames).
        described: what its arrays are, in their order.
        arrays: the examples.
        about: root attributes besides those this function makes; lists and maps become JSON.
        extra: further datasets by name, not part of the content.

    Returns:
        The sha256 (hex) of the content.

    Raises:
        OSError: with its number, such as that of a full disk.
    """
    try:
        return _write(path, described, arrays, about, extra or {})
    except RuntimeError as error:
        # So h5py says what goes wrong while a file is closed.
        number = system_error(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number)) from error


def _write(
    path: Path,
    described: Mapping[str, Array],
    arrays: Mapping[str, Stored],
    about: Mapping[str, Any],
    extra: Mapping[str, np.ndarray],
) -> str:
    block_rows = _block_rows(arrays)
    content = hashlib.sha256()
    with h5py.File(
        path,
        "w",
        libver=("v110", "v110"),  # its metadata carry checksums; a fixed version, fixed bytes
        alignment_threshold=PAGE,
        alignment_interval=PAGE,
        track_order=False,
        locking=False,
    ) as shard:
        for name, array in described.items():
            values = arrays[name]
            flat = values.values if isinstance(values, Ragged) else values
            flat = np.ascontiguousarray(flat, np.dtype(array.dtype).newbyteorder("<"))
            shard.create_dataset(name, data=flat, track_times=False)
            edges: Sequence[int] | np.ndarray = range(len(values) + 1)
            if isinstance(values, Ragged):
                edges = np.ascontiguousarray(values.offsets, "<i8")
                shard.create_dataset(f"offsets/{name}", data=edges, track_times=False)
                crc = np.uint32(zlib.crc32(edges.data))
                shard.create_dataset(f"checksums/offsets/{name}", data=crc, track_times=False)
                content.update(edges.data)
            sums = _hashed(flat, edges, block_rows, content)
            shard.create_dataset(f"checksums/{name}", data=sums, track_times=False)
        for name, more in extra.items():
            shard.create_dataset(name, data=more, track_times=False)
        attributes = {
            **about,
            "schema": SCHEMA,
            "arrays": {name: array.as_json() for name, array in described.items()},
            "content": content.hexdigest(),
        }
        for key in sorted(attributes):
            value = attributes[key]
            _write_text(shard, key, value if isinstance(value, str) else json.dumps(value))
        shard.attrs["block_rows"] = np.int64(block_rows)
    return content.hexdigest()


def _block_rows(arrays: Mapping[str, Stored]) -> int:
    """Return how many rows a block has: by what the largest array has of a row, on average."""
    sizes = [1]
    for values in arrays.values():
        total = values.values.nbytes if isinstance(values, Ragged) else values.nbytes
        sizes.append(total // max(1, len(values)))
    return 1 if max(sizes) >= OWN_BLOCK else BLOCK_BYTES // max(sizes)


def _write_text(shard: h5py.File, key: str, value: str) -> None:
    text = value.encode()
    shard.attrs.create(key, text, dtype=h5py.string_dtype("utf-8", max(1, len(text))))


def system_error(error: Exception) -> int | None:
    """Return the system's number for what went wrong, if it was the system that refused."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    number = re.search(r"errno = (\d+)", str(error))  # so the HDF5 library tells it
    return int(number[1]) if number else None


def text(shard: h5py.File, key: str) -> str:
    """Return a root attribute that is a text."""
    return bytes(shard.attrs[key]).decode()


def blocks(
    flat: np.ndarray, edges: Sequence[int] | np.ndarray, block_rows: int
) -> Iterator[np.ndarray]:
    """Yield the values of each block of rows.

    Args:
        edges: where rows start and where the last one ends.
    """
    rows = len(edges) - 1
    for start in range(0, rows, block_rows):
        yield flat[edges[start] : edges[min(start + block_rows, rows)]]


def _hashed(
    flat: np.ndarray, edges: Sequence[int] | np.ndarray, block_rows: int, content: Any
) -> np.ndarray:
    """Return the CRC-32 of each block of rows, uint32 ``(blocks,)``, and add all to `content`.

    Both at once, as long as a block is in the processor's cache.
    """
    sums = []
    for block in blocks(flat, edges, block_rows):
        content.update(block.data)
        sums.append(zlib.crc32(block.data))
    return np.array(sums, np.uint32)
