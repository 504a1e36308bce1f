"""Datasets: staged files, preprocessed as in a study, or noise of the same shape."""

import shutil
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import data
from lockstep.datasets import prepare

ARCHIVES = ("*.tar.gz", "*.tgz", "*.tar")
PICKLES = ("data_batch_1", "cifar-10-python.tar.gz")


def make(
    folder: Path, shape: tuple[int, ...], examples: int, tests: int, staged: Path | None = None
) -> str:
    """Make a dataset.

    Args:
        folder: that it gets.
        shape: of an example of noise.
        examples, tests: of noise, for training and for testing.
        staged: folder with raw files; None for noise.

    Returns:
        What it is, in words.
    """
    shutil.rmtree(folder, ignore_errors=True)  # what an attempt that was cut off has left
    folder.parent.mkdir(parents=True, exist_ok=True)
    if staged is None:
        images, labels = data.noise(examples + tests, shape)
        train, test = (images[tests:], labels[tests:]), (images[:tests], labels[:tests])
        data.write(folder, {"train": train, "test": test})
        return f"noise of shape {'x'.join(map(str, shape))}, {examples:,} examples"
    source, options, raw = recognised(staged)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        if raw.is_file():
            with tarfile.open(raw) as archive:
                archive.extractall(scratch, filter="data")
            raw = _root(Path(scratch))
        entry: Mapping[str, Any] = {"source": source, "options": options}
        prepare.prepare(staged.name, entry, "benchmark", raw, folder)
    return f"{staged.name} from staged files ({source})"


def recognised(staged: Path) -> tuple[str, dict[str, Any], Path]:
    """Return the source that reads a staged folder, its options, and what it is to read.

    MNIST's four files; CIFAR-10's pickled batches, or as images `SPLIT/CLASS/FILE`, which may be
    in an archive.
    """
    if any(staged.rglob("train-images-idx3-ubyte*")):
        return "mnist", {}, staged
    if any(next(staged.rglob(name), None) for name in PICKLES):
        return "cifar10", {}, staged
    packed = next((path for name in ARCHIVES for path in sorted(staged.glob(name))), None)
    return "image_folder", {"size": 32}, packed or staged


def _root(folder: Path) -> Path:
    """Return the folder that holds `train`: an archive may have one around it."""
    if (folder / "train").is_dir():
        return folder
    return next((path.parent for path in sorted(folder.rglob("train")) if path.is_dir()), folder)
