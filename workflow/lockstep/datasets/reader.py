"""Reads a preprocessed split by index, as fast as memory: no HDF5 call in the hot path.

A contiguous HDF5 dataset is an array at an offset of a file. The file is mapped, rows are gathered
with `np.take`, and the page cache holds the data once for all processes of a machine. Small splits
are verified whole at the start, by their sha256; of others each block of rows before its first use.
"""

import zlib
from pathlib import Path

import h5py
import numpy as np

from lockstep import files
from lockstep.datasets import shards
from lockstep.datasets.manifest import read as read_manifest
from lockstep.errors import UserError

VERIFY_AT_START = 1 << 30  # bytes; a second or so


class Reader:
    """One split of a preprocessed dataset.

    Attributes:
        examples: in the split.
        example_shape: of one image, such as ``(28, 28, 1)``.
    """

    def __init__(self, manifest_path: Path, split: str) -> None:
        """Map a split's shards.

        Raises:
            UserError: the manifest or a shard is missing, truncated or damaged.
        """
        manifest = read_manifest(manifest_path)
        if split not in manifest["splits"]:
            raise UserError(f"{manifest_path}: has no split {split!r}")
        entries = manifest["splits"][split]["shards"]
        self.shards = [_Shard(manifest_path.parent / entry["file"], entry) for entry in entries]
        self.examples: int = manifest["splits"][split]["examples"]
        self.example_shape = tuple(manifest["example_shape"])
        self._starts = np.cumsum([0] + [entry["examples"] for entry in entries])
        if sum(entry["bytes"] for entry in entries) <= VERIFY_AT_START:
            for shard in self.shards:
                shard.verify_whole()

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gather examples.

        Args:
            indices: int64 of any shape S, each in ``[0, examples)``.

        Returns:
            Images uint8 ``(*S, *example_shape)`` and labels int32 ``S``, freshly allocated: JAX on
            a CPU may alias what it is given, so a buffer is never used twice.

        Raises:
            UserError: a block that holds one of the examples is damaged.
        """
        if len(self.shards) == 1:
            return self.shards[0].take(indices)
        images = np.empty((*indices.shape, *self.example_shape), np.uint8)
        labels = np.empty(indices.shape, np.int32)
        owner = np.searchsorted(self._starts, indices, side="right") - 1
        for number in np.unique(owner):
            mine = owner == number
            images[mine], labels[mine] = self.shards[number].take(
                indices[mine] - self._starts[number]
            )
        return images, labels


class Examples:
    """The training split as loaders want it: a length and single examples.

    It pickles as a path: each worker process maps the shards by itself.
    """

    def __init__(self, manifest: Path) -> None:
        self.manifest = manifest
        self.length: int = read_manifest(manifest)["splits"]["train"]["examples"]
        self._reader: Reader | None = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_reader": None}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return an image uint8 ``(height, width, channels)`` and its label int32 ``()``."""
        if self._reader is None:
            self._reader = Reader(self.manifest, "train")
        return self._reader.take(np.asarray(index))


class _Shard:
    """One mapped file."""

    def __init__(self, path: Path, entry: dict) -> None:
        self.path = path
        if not path.is_file():
            raise UserError(f"{path}: no such shard; remove its folder to have it made again")
        if path.stat().st_size != entry["bytes"]:
            raise UserError(
                f"{path}: has {path.stat().st_size} bytes instead of {entry['bytes']}; "
                "it is truncated or was altered; remove its folder to have it made again"
            )
        try:
            with h5py.File(path, "r") as shard:
                self.block_rows = int(shard.attrs["block_rows"])
                self.arrays = {name: _mapped(path, shard[name]) for name in shards.ARRAYS}
                self.checksums = {name: shard[f"checksums/{name}"][()] for name in shards.ARRAYS}
                sound = (shard.attrs["schema"], shard.attrs["content"]) == (
                    shards.SCHEMA,
                    entry["content"],
                ) and all(len(array) == entry["examples"] for array in self.arrays.values())
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{path}: damaged ({error}); remove its folder to have it made again"
            ) from error
        if not sound:
            raise UserError(f"{path}: is not the shard that its manifest describes")
        self.sha256 = entry["sha256"]
        self.verified = np.zeros(len(self.checksums["images"]), bool)
        self.sound = False  # whether all blocks are verified

    def take(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if not self.sound:
            blocks = np.unique(indices // self.block_rows)
            for block in blocks[~self.verified[blocks]]:
                self.verify(int(block))
        # mode="clip" skips a bounds check and a second buffer; indices are made by Order.
        return (
            self.arrays["images"].take(indices, axis=0, mode="clip"),
            self.arrays["labels"].take(indices, axis=0, mode="clip"),
        )

    def verify_whole(self) -> None:
        if files.sha256_file(self.path) != self.sha256:
            for block in range(len(self.verified)):
                self.verify(block)  # names the block
            raise UserError(
                f"{self.path}: damaged outside its examples, its sha256 is not the manifest's; "
                "remove its folder to have it made again"
            )
        self.verified[:] = True
        self.sound = True

    def verify(self, block: int) -> None:
        rows = slice(block * self.block_rows, (block + 1) * self.block_rows)
        for name, array in self.arrays.items():
            if zlib.crc32(array[rows].data) != self.checksums[name][block]:
                raise UserError(
                    f"{self.path}: block {block} of {name} (rows {rows.start} to "
                    f"{min(rows.stop, len(array)) - 1}) is damaged; remove the shard's folder to "
                    "have it made again"
                )
        self.verified[block] = True
        self.sound = bool(self.verified.all())


def _mapped(path: Path, dataset: h5py.Dataset) -> np.ndarray:
    offset = dataset.id.get_offset()
    if offset is None:
        raise ValueError(f"{dataset.name} is not contiguous")
    mapped = np.memmap(path, dataset.dtype, "r", offset, dataset.shape)
    return mapped.view(np.ndarray)  # np.take on a plain array skips the subclass's overhead
