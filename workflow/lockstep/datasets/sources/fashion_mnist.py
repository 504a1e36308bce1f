"""Fashion-MNIST: IDX files like MNIST's, downloaded through torchvision or staged by a person."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lockstep.datasets import idx
from lockstep.datasets.arrays import Split

ORIGIN = "Fashion-MNIST, H. Xiao, K. Rasul, R. Vollgraf (Zalando Research)"
LICENCE = "MIT"
EXAMPLES = 60_000  # for training
CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)

FILES = {  # MD5 of the compressed originals, as torchvision has them
    "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
}


def fetch(raw: Path) -> None:
    """Download the four files with torchvision: its mirrors, its MD5 checksums."""
    from torchvision.datasets import FashionMNIST

    idx.fetch(FashionMNIST, raw)


def read(raw: Path, options: Mapping[str, Any]) -> Iterator[Split]:
    """Yield the two splits from the compressed originals, each checked against its MD5."""
    yield from idx.read(raw, FILES)
