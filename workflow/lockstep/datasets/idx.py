"""The IDX format of MNIST and its descendants: fetching, checking, reading.

Format: two zero bytes, a type code (8: unsigned byte), the number of dimensions, each dimension
as a big-endian 32-bit integer, then the values. http://yann.lecun.com/exdb/mnist/
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.datasets import download, staged
from lockstep.datasets.arrays import Split, labelled
from lockstep.errors import UserError

SPLITS = {"train": "train", "test": "t10k"}


def fetch(dataset: Any, raw: Path) -> None:
    """Download a torchvision dataset's compressed files into `raw`; all of them or none.

    Args:
        dataset: `torchvision.datasets.MNIST` or a subclass.
        raw: folder to make.

    Raises:
        UserError: no mirror gave a file with the right checksum.
    """
    download.fetch(dataset, raw, "*.gz", "its four IDX files")


def read(raw: Path, checksums: Mapping[str, str]) -> Iterator[Split]:
    """Yield the splits from a folder of IDX files, compressed or not.

    Args:
        raw: folder that holds the four files, at its top or in one subfolder.
        checksums: by the name of the decompressed file; an MD5 is that of the compressed
            original, a sha256 that of the decompressed content.

    Yields:
        Images uint8 ``(N, height, width, 1)`` and labels of each split.

    Raises:
        UserError: a file is missing, damaged or not what it should be.
    """
    staged.check_folder(raw, f"{', '.join(checksums)} (.gz)")
    content = {name: _content(raw, name, checksum) for name, checksum in checksums.items()}
    for split, prefix in SPLITS.items():
        images = _array(raw, f"{prefix}-images-idx3-ubyte", content, 3)
        labels = _array(raw, f"{prefix}-labels-idx1-ubyte", content, 1)
        if len(images) != len(labels):
            raise UserError(f"{raw}: {len(images)} {split} images but {len(labels)} labels")
        yield split, labelled(images[..., None], labels)


def _content(raw: Path, name: str, checksum: str) -> bytes:
    """Return a file's decompressed content, checked."""
    also = name.replace("-idx", ".idx")  # as many unpackers and copies have it
    names = (f"{name}.gz", f"{also}.gz", name, also)
    path = next(filter(None, (staged.find(raw, each) for each in names)), None)
    if path is None:
        raise UserError(f"{raw}: holds no {name}.gz; it should hold the four IDX files")
    stored = staged.read(path)
    compressed = path.suffix == ".gz"
    try:
        content = gzip.decompress(stored) if compressed else stored
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged ({error}); fetch it again") from error
    if len(checksum) == 32:
        if not compressed:
            raise UserError(f"{path}: stage the compressed original {name}.gz, whose MD5 is known")
        actual = hashlib.md5(stored, usedforsecurity=False).hexdigest()
    else:
        actual = hashlib.sha256(content).hexdigest()
    if actual != checksum:
        raise UserError(f"{path}: checksum {actual} is not {checksum}; fetch it again")
    return content


def _array(raw: Path, name: str, content: Mapping[str, bytes], dimensions: int) -> np.ndarray:
    data = content[name]
    header = 4 + 4 * dimensions
    if data[:4] != bytes([0, 0, 8, dimensions]):
        raise UserError(f"{raw}: {name} is not an IDX file of {dimensions} dimensions of bytes")
    shape = np.frombuffer(data, ">u4", dimensions, 4)
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
