"""The reader on records of 150 KB (224 x 224 x 3) in many shards, against copying memory.

All yield batches of 128 examples. `reader` takes them in random order from eight shards, `memcpy`
copies as many bytes in sequence from RAM into a fresh array each time, `np.take` gathers them from
RAM in the reader's order. `first use` is a reader that verifies each record before, as it does once
with data that are too large to be verified at the start.
"""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks import data
from benchmarks.row import Row, ratio, times
from benchmarks.turns import in_turns
from lockstep import files
from lockstep.datasets import manifest, reader

SHAPE = (224, 224, 3)
BATCH, SHARDS = 128, 8


def measure(quick: bool) -> list[Row]:
    """Return the reader's throughput, and its ratio to copying memory."""
    examples, rounds = (256, 3) if quick else (2_048, 41)
    with tempfile.TemporaryDirectory() as folder:
        images, labels = data.noise(examples, SHAPE)
        made = _written(Path(folder), images, labels)
        return _measure(made, images, labels, rounds)


def _measure(made: Path, images: np.ndarray, labels: np.ndarray, rounds: int) -> list[Row]:
    order = np.random.Generator(np.random.Philox(1)).permutation(len(images))
    batches = [order[start : start + BATCH] for start in range(0, len(images), BATCH)]
    ready = reader.Reader(made, "train")

    def shared() -> None:
        for batch in batches:
            ready.take(batch)

    def first_use() -> None:
        fresh = _unverified(made)
        for batch in batches:
            fresh.take(batch)

    def copied() -> None:
        for start in range(0, len(images), BATCH):
            images[start : start + BATCH].copy(), labels[start : start + BATCH].copy()

    def gathered() -> None:
        for batch in batches:
            images.take(batch, axis=0), labels.take(batch)

    functions = {"reader": shared, "memcpy": copied, "np.take": gathered, "first use": first_use}
    turns = in_turns(functions, rounds, warm_up=2)
    speed = {name: images.nbytes / 1e9 / np.array(seconds) for name, seconds in turns.items()}
    return [
        ratio("reader : memcpy", speed["reader"], speed["memcpy"], (">=", 0.75)),
        ratio("reader : np.take from RAM", speed["reader"], speed["np.take"]),
        *(times(name, "GB/s", values) for name, values in speed.items()),
    ]


def _unverified(made: Path) -> reader.Reader:
    """A reader that takes the examples for too large to be verified at the start."""
    usual, reader.VERIFY_AT_START = reader.VERIFY_AT_START, 0
    try:
        return reader.Reader(made, "train")
    finally:
        reader.VERIFY_AT_START = usual


def _written(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    """Write the examples as `SHARDS` shards."""
    entries = []
    for number, rows in enumerate(np.array_split(np.arange(len(images)), SHARDS)):
        path = folder / f"train-{number:05d}.h5"
        part = slice(rows[0], rows[-1] + 1)
        entries.append(data.shard(path, images[part], labels[part]))
    made = manifest.make(data.said(images.shape[1:]), {"train": entries})
    files.write_json(folder / "manifest.json", made)
    return folder / "manifest.json"
