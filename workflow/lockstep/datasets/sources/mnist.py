"""MNIST: the four original IDX files, downloaded through torchvision or staged by a person."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lockstep.datasets import idx
from lockstep.datasets.arrays import Split

ORIGIN = "MNIST, Y. LeCun, C. Cortes, C. Burges"
LICENCE = "CC BY-SA 3.0"
EXAMPLES = 60_000  # for training
CLASSES = tuple(str(digit) for digit in range(10))

FILES = {  # sha256 of the decompressed files; a re-compressed copy is the same data
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def fetch(raw: Path) -> None:
    """Download the four files with torchvision: its mirrors, its MD5 checksums."""
    from torchvision.datasets import MNIST

    idx.fetch(MNIST, raw)


def read(raw: Path, options: Mapping[str, Any]) -> Iterator[Split]:
    """Yield the two splits from the raw files, each checked against its sha256."""
    yield from idx.read(raw, FILES)
