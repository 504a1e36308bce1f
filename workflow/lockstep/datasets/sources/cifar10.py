"""CIFAR-10: torchvision's pickled batches, downloaded through it or staged by a person.

A pickle can run any program, so none is opened before its MD5 is the published one, and then by an
unpickler that knows NumPy's arrays and nothing else.
"""

import hashlib
import io
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.datasets import download, staged
from lockstep.datasets.arrays import Split, labelled
from lockstep.errors import UserError

ORIGIN = "CIFAR-10, A. Krizhevsky, Learning multiple layers of features from tiny images (2009)"
LICENCE = "free for research"
EXAMPLES = 50_000  # for training
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
SPLITS = {  # MD5 of each file, as torchvision has them
    "train": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
}


def fetch(raw: Path) -> None:
    """Download the archive with torchvision and keep its batches."""
    from torchvision.datasets import CIFAR10

    download.fetch(CIFAR10, raw, "*_batch*", f"{ARCHIVE} or its batches")


def read(raw: Path, options: Mapping[str, Any]) -> Iterator[Split]:
    """Yield the two splits from the batches or from the archive that holds them.

    Raises:
        UserError: a file is missing or is not the published one.
    """
    staged.check_folder(raw, f"{ARCHIVE} or its batches")
    for split, batches in SPLITS.items():
        stored = [_batch(raw, name, md5) for name, md5 in batches.items()]
        images = np.concatenate([images for images, _ in stored])
        yield split, labelled(images, np.concatenate([labels for _, labels in stored]))


def _batch(raw: Path, name: str, md5: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch's images uint8 ``(N, 32, 32, 3)`` and labels."""
    where, content = _content(raw, name)
    _check(where, content, md5)
    try:
        batch = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        rows, labels = np.asarray(batch["data"]), np.array(batch["labels"])
        return rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{where}: is not a batch of CIFAR-10 ({error})") from error


def _content(raw: Path, name: str) -> tuple[Path, bytes]:
    """Return where a batch was found, and its bytes."""
    found = staged.find(raw, name)
    if found:
        return found, staged.read(found)
    path = staged.find(raw, ARCHIVE)
    if path is None:
        raise UserError(f"{raw}: holds neither {name} nor {ARCHIVE}")
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if Path(member.name).name == name and member.isfile():
                    stream = archive.extractfile(member)
                    assert stream is not None
                    return path / name, stream.read()
    except PermissionError as error:
        raise staged.unreadable(path, error) from error
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged ({error}); fetch it again") from error
    raise UserError(f"{path}: holds no {name}; fetch it again")


def _check(where: Path, content: bytes, md5: str) -> None:
    actual = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if actual != md5:
        raise UserError(f"{where}: checksum {actual} is not {md5}; fetch it again")


class _Unpickler(pickle.Unpickler):
    """Makes arrays, dictionaries, lists, texts and numbers."""

    def find_class(self, module: str, name: str) -> Callable:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.ndarray.__reduce__(np.empty(0))[0]  # type: ignore[return-value]
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _encode(text: str, encoding: str) -> bytes:
    return text.encode(encoding)
