"""The reader, end to end, against a DataLoader over h5py and against `np.take` from RAM.

All three yield every example of 3 KB once in random order, in batches of 64, images and labels.

reader       the order of examples from the run's key, and `Reader.take`: what a run's feed calls.
np.take      both arrays whole in RAM, the permutation made beforehand.
DataLoader   PyTorch's, `shuffle=True`, over a dataset that opens the same contiguous HDF5 file on
             first use and reads `image[i]` and `label[i]`: the widely copied way. It takes 100
             batches a turn; what its workers have read ahead before the turn is in its favour.
"""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from torch.utils.data import DataLoader, Dataset

from benchmarks import data
from benchmarks.row import Row, ratio, times
from benchmarks.turns import in_turns
from lockstep.datasets.order import Order
from lockstep.datasets.reader import Reader

SHAPE = (32, 32, 3)
BATCH = 64
SETTLE = 0.05  # seconds in which a DataLoader's workers read ahead as far as they may


class LazyH5(Dataset):
    """An HDF5 file opened where it is first read: in each worker."""

    def __init__(self, path: Path, examples: int) -> None:
        self.path, self.examples = path, examples
        self.arrays: Any = None

    def __len__(self) -> int:
        return self.examples

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        if self.arrays is None:
            file = h5py.File(self.path, "r")
            self.arrays = file["image"], file["label"]  # looking them up each time takes longer
        images, labels = self.arrays
        return images[index], labels[index]


class Loader:
    """A DataLoader that goes on from epoch to epoch; a call takes some batches."""

    def __init__(self, dataset: LazyH5, workers: int, batches: int) -> None:
        loader = DataLoader(
            dataset,
            batch_size=BATCH,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        self.stream = (batch for _ in itertools.count() for batch in loader)
        self.batches = batches

    def __call__(self) -> None:
        """Take the next batches."""
        for _ in range(self.batches):
            next(self.stream)


def measure(quick: bool) -> list[Row]:
    """Return the reader's throughput, and its ratio to the others'."""
    examples, rounds, loaded = (2_000, 3, 5) if quick else (50_000, 31, 100)
    with tempfile.TemporaryDirectory() as folder:
        images, labels = data.noise(examples, SHAPE)
        manifest = data.write(Path(folder) / "data", {"train": (images, labels)})
        return _measure(manifest, images, labels, rounds, loaded)


def _measure(
    manifest: Path, images: np.ndarray, labels: np.ndarray, rounds: int, loaded: int
) -> list[Row]:
    reader, order = Reader(manifest, "train"), Order(len(images), BATCH, seed=0, drop_last=True)
    permutation = np.random.Generator(np.random.Philox(1)).permutation(len(images))
    steps, epochs = order.steps_per_epoch, itertools.count()

    def shared() -> None:
        first = next(epochs) * steps  # a new epoch: making its permutation is counted in
        for step in range(first, first + steps):
            indices, _ = order.batch(step)
            reader.take(indices)

    def from_ram() -> None:
        for step in range(steps):
            indices = permutation[step * BATCH : (step + 1) * BATCH]
            np.take(images, indices, axis=0), np.take(labels, indices)

    dataset = LazyH5(manifest.parent / "train-00000.h5", len(images))
    alone, helped = Loader(dataset, 0, loaded), Loader(dataset, 2, loaded)
    # Apart, as memory is compared more finely: first without a loader's workers beside it.
    ram = in_turns({"reader": shared, "ram": from_ram}, 4 * rounds, warm_up=2)
    others: dict[str, Callable[[], object]] = {"reader": shared, "alone": alone, "helped": helped}
    turns = in_turns(others, rounds, warm_up=2, settle=SETTLE)
    reader_speed = BATCH * steps / np.array(turns["reader"])
    speed = {name: BATCH * loaded / np.array(turns[name]) for name in ("alone", "helped")}
    speed |= {name: BATCH * steps / np.array(seconds) for name, seconds in ram.items()}
    return [
        ratio("reader : DataLoader over h5py", reader_speed, speed["alone"], (">=", 50.0)),
        ratio("reader : the same, 2 workers", reader_speed, speed["helped"], (">=", 50.0)),
        ratio("reader : np.take from RAM", speed["reader"], speed["ram"], (">=", 0.95)),
        times("reader", "examples/s", speed["reader"]),
        times("np.take from RAM", "examples/s", speed["ram"]),
        times("DataLoader over h5py", "examples/s", speed["alone"]),
        times("DataLoader over h5py, 2 workers", "examples/s", speed["helped"]),
    ]
