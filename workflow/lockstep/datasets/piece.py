"""One shard of a source of many files, made from its slice of the sorted list and nothing else.

So any process on any node can make any shard, in any order. What a finished shard was made of is
noted beside it (`stamp`); a shard whose note is as it would be now is kept.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import files
from lockstep.datasets import manifest, shards, sources
from lockstep.datasets.arrays import Array, Stored, image_arrays
from lockstep.datasets.survey import Original, Undecodable
from lockstep.errors import UserError

TOLD = 5  # files that are named; the others are counted
ROOM = "start again with more memory or fewer processes (what is finished is kept)"


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What one shard is made of.

    Attributes:
        name: of the shard, such as ``train-00003``.
        file: of the source, if it is outside of this package.
        originals: its examples in their order.
        example_shape: of each image.
        skip: whether files that cannot be decoded are left out.
        about: the shard's root attributes.
        raw: folder that the originals' names are relative to.
        partial: folder with `shards` and `notes`.
    """

    name: str
    source: str
    file: str | None
    options: Mapping[str, Any]
    originals: tuple[Original, ...]
    example_shape: tuple[int, ...]
    skip: bool
    about: Mapping[str, Any]
    raw: Path
    partial: Path

    @property
    def shard(self) -> Path:
        """The file to make."""
        return self.partial / "shards" / f"{self.name}.h5"

    @property
    def note(self) -> Path:
        """What is known of it when it is finished."""
        return self.partial / "notes" / f"{self.name}.json"


@dataclass(kw_only=True)
class Result:
    """What became of a piece.

    Attributes:
        entry: the manifest's, None if originals were refused.
        kept: whether the shard was there from an earlier start.
        counts: conversions and the like, by kind.
        labels: how many examples have each label.
        bad: files that could not be decoded: how many.
        lost: files that could not be read: how many.
        bad_first, lost_first: the first few of them, each with the reason.
    """

    entry: manifest.Entry | None = None
    kept: bool = False
    counts: Counter[str] = field(default_factory=Counter)
    labels: Counter[int] = field(default_factory=Counter)
    bad: int = 0
    lost: int = 0
    bad_first: list[str] = field(default_factory=list)
    lost_first: list[str] = field(default_factory=list)


def each(pieces: Iterable[Piece]) -> Iterator[Result]:
    """Make shards in turn: while one is decoded the one before it is brought to the disk.

    Raises:
        UserError: the disk is full, or there is too little memory.
    """
    with ThreadPoolExecutor(1) as disk:
        before: Future[Result] | None = None
        for piece in pieces:
            now = disk.submit(_begun(piece))
            if before:
                yield before.result()
            before = now
        if before:
            yield before.result()


def _begun(piece: Piece) -> Callable[[], Result]:
    """Decode and write a shard, or find that it is there; returns what finishes it."""
    kept = _kept(piece)
    if kept:
        return lambda: kept
    files.remove(piece.note)
    for left_behind in files.abandoned(piece.shard):
        files.remove(left_behind)
    try:
        return _written(piece)
    except MemoryError as error:
        raise UserError(
            f"{piece.shard}: there is too little memory for {len(piece.originals)} images; "
            f"{ROOM}, or have smaller shards"
        ) from error


def _written(piece: Piece) -> Callable[[], Result]:
    result, images, labels, extra, stamp = _decoded(piece)
    arrays: dict[str, Stored] = {"image": images, "label": labels}
    examples = len(images)
    if result.lost or (result.bad and not piece.skip) or not examples:
        return lambda: result
    with ExitStack() as stack:
        temporary = stack.enter_context(files.atomic(piece.shard))
        content = shards.write(temporary, described(piece), arrays, piece.about, extra)
        written = stack.pop_all()

    def finish() -> Result:
        written.close()  # synced, and has its name
        result.entry = manifest.entry(piece.shard, examples, content)
        known = {
            "stamp": stamp,
            "entry": result.entry,
            "counts": result.counts,
            "labels": sorted(result.labels.items()),
            "bad": result.bad,
            "bad_first": result.bad_first,
        }
        files.write_json(piece.note, known)
        return result

    return finish


def described(piece: Piece) -> dict[str, Array]:
    """Return what the arrays of a shard are."""
    return image_arrays(piece.example_shape, len(piece.about["classes"]))


def _decoded(piece: Piece) -> tuple[Result, np.ndarray, np.ndarray, dict[str, np.ndarray], str]:
    """Decode all; the arrays hold those that could be, in order, and the last is the stamp."""
    sources.settle({"file": piece.file})
    decode = sources.load(piece.source).decode
    result, done, stamp = Result(), 0, _stamp(piece)
    images = np.empty((len(piece.originals), *piece.example_shape), np.uint8)
    labels, names, hashes = [], [], []
    folder = os.fsencode(f"{piece.raw}/")
    for original in piece.originals:
        name = os.fsencode(original.name)
        try:
            status, content = _read(folder + name)
        except OSError as error:
            result.lost += 1
            result.lost_first.append(f"{original.name} {_why(error)}")
            continue
        stamp.update(_state(name, original.label, status))
        try:
            image, notes = decode(content, piece.options)
        except Undecodable as error:
            result.bad += 1
            result.bad_first.append(f"{original.name} {error}")
            continue
        except MemoryError as error:
            raise UserError(
                f"{piece.raw}/{original.name}: there is too little memory to decode it; {ROOM}"
            ) from error
        if image.dtype != np.uint8:  # it would be cut to eight bits in silence
            raise UserError(
                f"{piece.raw}/{original.name}: source {piece.source} made {image.dtype} of it; "
                "images must be uint8"
            )
        images[done] = image
        hashes.append(hashlib.sha256(content).digest())
        names.append(name)
        labels.append(original.label)
        if notes:
            result.counts.update(notes)
        done += 1
    result.labels.update(labels)
    del result.bad_first[TOLD:], result.lost_first[TOLD:]
    extra = {
        "originals/name": np.array(names, "S"),
        "originals/sha256": np.frombuffer(b"".join(hashes), np.uint8).reshape(done, 32),
    }
    return result, images[:done], np.array(labels, "<i4"), extra, stamp.hexdigest()


def _read(path: bytes) -> tuple[os.stat_result, bytes]:
    """Return a file's state and content. For small files `open` takes twice as many calls."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        content = os.read(descriptor, status.st_size + 1)
        if len(content) != status.st_size:  # somebody writes it, or not all came at once
            while more := os.read(descriptor, 1 << 20):
                content += more
        return status, content
    finally:
        os.close(descriptor)


def _why(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "was listed and is not there any more"
    return f"cannot be read ({error.strerror})"


def _stamp(piece: Piece) -> Any:
    """Begin the hash of what a shard is made of; the state of each original follows."""
    about = [piece.about, piece.example_shape, piece.skip]
    return hashlib.sha256(files.canonical_json(about))


def _state(name: bytes, label: int, status: os.stat_result) -> bytes:
    return b"%b\0%d\0%d\0%d\0" % (name, label, status.st_size, status.st_mtime_ns)


def _kept(piece: Piece) -> Result | None:
    """Return what is known of a finished shard, if nothing that it was made of has changed."""
    if not piece.note.is_file() or not piece.shard.is_file():
        return None
    stamp = _stamp(piece)
    try:
        for original in piece.originals:
            name = os.fsencode(original.name)
            stamp.update(_state(name, original.label, (piece.raw / original.name).stat()))
    except OSError:
        return None  # decoding says which
    try:
        known = files.read_json(piece.note)
        if known["stamp"] != stamp.hexdigest():
            return None
        kept = Result(
            entry=known["entry"],
            kept=True,
            counts=Counter(known["counts"]),
            labels=Counter(dict(known["labels"])),
            bad=known["bad"],
            bad_first=known["bad_first"],
        )
        size = known["entry"]["bytes"]
    except (UserError, LookupError, TypeError, ValueError):
        return None  # a damaged note tells of nothing that is finished
    return kept if piece.shard.stat().st_size == size else None
