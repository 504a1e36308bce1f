"""One HDF5 file of examples: uncompressed, contiguous, page-aligned, checksummed by block.

The file is plain HDF5 (`h5dump` and h5py read it). Datasets:

`images`      uint8 ``(N, height, width, channels)``
`labels`      int32 ``(N,)``
`checksums/images`, `checksums/labels`   uint32 ``(blocks,)``: CRC-32 of each block of rows
`originals/name`, `originals/sha256`     of the file that each example was made of, where the
                                         source has one file an example

Root attributes: `schema`, `split`, `source`, `origin`, `licence`, `classes` and `options` (JSON),
`content` (sha256 of the arrays' bytes, images then labels) and `block_rows`. Texts are UTF-8 of
fixed length: those of variable length lie in a heap without a checksum, where one flipped bit can
keep the HDF5 library busy forever. Everything that the library would choose by time or version is
fixed, so equal input gives equal bytes.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

SCHEMA = "lockstep-shard/1"
ARRAYS = ("images", "labels")
PAGE = 4096
BLOCK_BYTES = 1 << 20
OWN_BLOCK = 1 << 16
"""Bytes from which a row is a block by itself: reading one must not mean to read its neighbours."""


def write(
    path: Path,
    images: np.ndarray,
    labels: np.ndarray,
    about: Mapping[str, Any],
    extra: Mapping[str, np.ndarray] | None = None,
) -> str:
    """Write a shard.

    Args:
        path: file to write (not atomic: the caller renames).
        images: uint8 ``(N, height, width, channels)``.
        labels: integers ``(N,)``.
        about: root attributes besides those this function makes; lists and maps become JSON.
        extra: further datasets by name, not part of the content.

    Returns:
        The sha256 (hex) of the content.

    Raises:
        OSError: with its number, such as that of a full disk.
    """
    try:
        return _write(path, images, labels, about, extra or {})
    except RuntimeError as error:
        # So h5py says what goes wrong while a file is closed.
        number = system_error(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number)) from error


def _write(
    path: Path,
    images: np.ndarray,
    labels: np.ndarray,
    about: Mapping[str, Any],
    extra: Mapping[str, np.ndarray],
) -> str:
    arrays = {
        "images": np.ascontiguousarray(images, np.uint8),
        "labels": np.ascontiguousarray(labels, "<i4"),
    }
    row = max(1, arrays["images"][:1].nbytes)
    block_rows = 1 if row >= OWN_BLOCK else BLOCK_BYTES // row
    content = hashlib.sha256()
    with h5py.File(
        path,
        "w",
        libver=("v110", "v110"),  # its metadata carry checksums; a fixed version, fixed bytes
        alignment_threshold=PAGE,
        alignment_interval=PAGE,
        track_order=False,
    ) as shard:
        for name in ARRAYS:
            array = arrays[name]
            shard.create_dataset(name, data=array, track_times=False)
            sums = _hashed(array, block_rows, content)
            shard.create_dataset(f"checksums/{name}", data=sums, track_times=False)
        for name, array in extra.items():
            shard.create_dataset(name, data=array, track_times=False)
        attributes = {**about, "schema": SCHEMA, "content": content.hexdigest()}
        for key in sorted(attributes):
            value = attributes[key]
            _write_text(shard, key, value if isinstance(value, str) else json.dumps(value))
        shard.attrs["block_rows"] = np.int64(block_rows)
    return content.hexdigest()


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


def _hashed(array: np.ndarray, block_rows: int, content: Any) -> np.ndarray:
    """Return the CRC-32 of each block of rows, uint32 ``(blocks,)``, and add all to `content`.

    Both at once, as long as a block is in the processor's cache.
    """
    sums = []
    for start in range(0, len(array), block_rows):
        block = array[start : start + block_rows].data
        content.update(block)
        sums.append(zlib.crc32(block))
    return np.array(sums, np.uint32)
