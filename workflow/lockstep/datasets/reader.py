"""Reads a preprocessed split by index, as fast as memory: no HDF5 call in the hot path.

A contiguous HDF5 dataset is an array at an offset of a file. The file is mapped, rows are gathered
with `np.take`, and the page cache holds the data once for all processes of a machine. Of a split of
many shards a batch has rows in most of them: they are copied one by one. Small splits are verified
whole at the start, by their sha256, before anything is believed of them; of others each block of
rows before its first use.
"""

import errno
import itertools
import mmap
import os
import resource
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lockstep import files
from lockstep.datasets import arrays, shards
from lockstep.datasets.arrays import Array, Ragged
from lockstep.datasets.manifest import read as read_manifest
from lockstep.errors import UserError

VERIFY_AT_START = 1 << 30  # bytes; a second or so
FILES = (errno.EMFILE, errno.ENFILE)
MACHINES = (errno.EACCES, errno.EIO, errno.ENOMEM, errno.EPERM, errno.ESTALE)
"""Error numbers that say nothing of what a file holds."""


class Reader:
    """One split of a preprocessed dataset.

    Attributes:
        examples: in the split.
        arrays: as stored, by name.
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
        _allow_files(len(entries))
        whole = sum(entry["bytes"] for entry in entries) <= VERIFY_AT_START
        self.arrays = arrays.of_manifest(manifest)
        self.shards = [
            _Shard(manifest_path.parent / entry["file"], entry, self.arrays.values(), whole=whole)
            for entry in entries
        ]
        self.examples: int = manifest["splits"][split]["examples"]
        self._starts = np.cumsum([0] + [entry["examples"] for entry in entries])
        self._block_rows = np.array([shard.block_rows for shard in self.shards])
        self._first_blocks = np.cumsum([0] + [shard.blocks for shard in self.shards])
        self._verified = np.zeros(self._first_blocks[-1], bool)
        self._sound = whole  # whether all blocks are verified

    def take(
        self,
        indices: np.ndarray,
        into: Mapping[str, np.ndarray] | None = None,
        names: Iterable[str] | None = None,
    ) -> dict[str, Any]:
        """Gather examples.

        Args:
            indices: int64 of any shape S, each in ``[0, examples)``.
            into: contiguous arrays ``(*S, …)`` for what is returned, by name; those that are
                missing are allocated here.
            names: of the arrays that are wanted; all if None.

        Returns:
            Arrays ``(*S, …)`` in their order, freshly allocated: JAX on a CPU may alias what it is
            given, so a buffer is never used twice. Of a ragged one `Ragged`, flat over S.

        Raises:
            UserError: a block that holds one of the examples is damaged.
        """
        flat, into, found = indices.reshape(-1), into or {}, dict[str, Any]()
        several = len(self.shards) > 1
        owners = np.searchsorted(self._starts, flat, side="right") - 1 if several else None
        rows = flat if owners is None else flat - self._starts[owners]
        if not self._sound:
            self._verify(np.zeros(len(flat), np.intp) if owners is None else owners, rows)
        for name, array in self.arrays.items():
            if names is not None and name not in names:
                continue
            own = into.get(name)
            if array.ragged:
                found[name] = self._ragged(array, owners, rows)
            elif owners is None:
                stored = self.shards[0].arrays[name]
                # mode="clip" spares a second buffer behind `out`; without `out` it is slower.
                found[name] = (
                    np.asarray(stored.take(indices, axis=0))
                    if own is None
                    else stored.take(indices, axis=0, out=own, mode="clip")
                )
            else:
                if own is None:
                    own = np.empty((*indices.shape, *array.shape), array.dtype)
                # A view: what is contiguous is not copied.
                self._gather(name, owners, rows, own.reshape(len(flat), *array.shape))
                found[name] = own
        return found

    def lengths(self, name: str) -> np.ndarray:
        """Return how long each example of a ragged array is, int64 ``(examples,)``."""
        return np.concatenate([np.diff(shard.edges[name]) for shard in self.shards])

    def _gather(self, name: str, owners: np.ndarray, rows: np.ndarray, into: np.ndarray) -> None:
        stored = [shard.arrays[name] for shard in self.shards]
        for slot, (owner, row) in enumerate(zip(owners.tolist(), rows.tolist())):
            into[slot] = stored[owner][row]

    def _ragged(self, array: Array, owners: np.ndarray | None, rows: np.ndarray) -> Ragged:
        parts, lengths = [], []
        shards = itertools.repeat(0) if owners is None else owners.tolist()
        for owner, row in zip(shards, rows.tolist()):
            shard = self.shards[owner]
            start, end = shard.edges[array.name][row : row + 2].tolist()
            parts.append(shard.arrays[array.name][start:end])
            lengths.append(end - start)
        none = np.empty((0, *array.shape), array.dtype)
        return Ragged(values=np.concatenate([none, *parts]), lengths=np.array(lengths, np.int64))

    def _verify(self, owners: np.ndarray, rows: np.ndarray) -> None:
        """Verify the blocks of these rows of shards, each once."""
        blocks = rows // self._block_rows[owners]
        known = self._first_blocks[owners] + blocks
        for new in np.flatnonzero(~self._verified[known]):
            if not self._verified[known[new]]:
                self.shards[owners[new]].verify(int(blocks[new]))
                self._verified[known[new]] = True
        self._sound = bool(self._verified.all())


def _allow_files(count: int) -> None:
    """Allow this process to map so many files: each keeps one open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = soft + count
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if count > soft // 2 and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


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

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Return an example's arrays."""
        if self._reader is None:
            self._reader = Reader(self.manifest, "train")
        return self._reader.take(np.asarray(index))


class _Shard:
    """One mapped file."""

    def __init__(self, path: Path, entry: dict, arrays: Iterable[Array], *, whole: bool) -> None:
        """Map a shard; verify all of it first if `whole`."""
        self.path = path
        described = [(array.name, array) for array in arrays]
        if not path.is_file():
            raise UserError(f"{path}: no such shard; remove its folder to have it made again")
        if path.stat().st_size != entry["bytes"]:
            raise UserError(
                f"{path}: has {path.stat().st_size} bytes instead of {entry['bytes']}; "
                "it is truncated or was altered; remove its folder to have it made again"
            )
        try:
            sound = not whole or files.sha256_file(path) == entry["sha256"]
            with h5py.File(path, "r", locking=False) as shard:
                self.block_rows = int(shard.attrs["block_rows"])
                content = _mapped(path)
                self.arrays = {name: _array(content, shard[name], a) for name, a in described}
                self.edges = {
                    name: _edges(shard, name, array.ragged, len(self.arrays[name]))
                    for name, array in described
                }
                self.checksums = {name: shard[f"checksums/{name}"][()] for name, _ in described}
                self.blocks = len(next(iter(self.checksums.values())))
                if not sound:
                    self._refuse()
                known = tuple(shards.text(shard, key) for key in ("schema", "content"))
                rows = {len(edges) - 1 for edges in self.edges.values()}
        # The library and what is made of its answers raise all of these for damaged files.
        except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
            raise _refusal(path, error) from error
        if known != (shards.SCHEMA, entry["content"]) or rows != {entry["examples"]}:
            raise UserError(f"{path}: is not the shard that its manifest describes")

    def _refuse(self) -> None:
        for block in range(self.blocks):
            self.verify(block)  # names the block
        raise UserError(
            f"{self.path}: damaged outside its examples, its sha256 is not the manifest's; "
            "remove its folder to have it made again"
        )

    def verify(self, block: int) -> None:
        first, last = block * self.block_rows, (block + 1) * self.block_rows
        for name, array in self.arrays.items():
            edges = self.edges[name]
            last = min(last, len(edges) - 1)
            if zlib.crc32(array[edges[first] : edges[last]].data) != self.checksums[name][block]:
                raise UserError(
                    f"{self.path}: block {block} of {name} (rows {first} to {last - 1}) is "
                    "damaged; remove the shard's folder to have it made again"
                )


def _refusal(path: Path, error: Exception) -> UserError:
    number = shards.system_error(error)
    if number in FILES:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return UserError(
            f"{path}: cannot be opened, {os.strerror(number).lower()}: a process may have {hard} "
            "and needs one a shard; raise the hard limit (ulimit -Hn), or have fewer and larger "
            "shards"
        )
    if number in MACHINES:
        return UserError(f"{path}: cannot be read ({os.strerror(number)}); it need not be damaged")
    return UserError(f"{path}: damaged ({error}); remove its folder to have it made again")


def _mapped(path: Path) -> mmap.mmap:
    with open(path, "rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def _edges(shard: h5py.File, name: str, ragged: bool, rows: int) -> Sequence[int] | np.ndarray:
    """Return where each example starts, and where the last one ends."""
    if not ragged:
        return range(rows + 1)
    offsets = np.ascontiguousarray(shard[f"offsets/{name}"][()], "<i8")
    if zlib.crc32(offsets.data) != shard[f"checksums/offsets/{name}"][()]:
        raise ValueError(f"the offsets of {name} are not those that were written")
    return offsets


def _array(content: mmap.mmap, dataset: h5py.Dataset, described: Array) -> np.ndarray:
    offset = dataset.id.get_offset()
    if offset is None:
        raise ValueError(f"{dataset.name} is not contiguous")
    found = np.dtype(described.dtype), described.shape
    if (dataset.dtype, dataset.shape[1:]) != found:
        raise ValueError(
            f"{dataset.name} is {dataset.dtype} {dataset.shape[1:]}, not {found[0]} {found[1]}"
        )
    return np.frombuffer(content, dataset.dtype, dataset.size, offset).reshape(dataset.shape)
