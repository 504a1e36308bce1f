"""Preprocessing: the same bytes every time, plain HDF5, and nothing of damaged files."""

import errno
import functools
import gzip
import hashlib
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest

from lockstep import files
from lockstep.datasets import arrays, idx, prepare, shards
from lockstep.datasets.reader import Reader
from lockstep.errors import UserError
from tests.conftest import staged

IDX = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def make(source: str, raw: Path, folder: Path) -> Path:
    prepare.prepare("name", {"source": source, "options": {}}, "id", raw, folder)
    return folder


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    one, two = (make("digits", tmp_path, tmp_path / name) for name in ("one", "two"))
    for path in sorted(one.iterdir()):
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_the_bytes_are_those_of_every_machine(digits: Path) -> None:
    """Guards archived studies: a new library version must not change the format silently."""
    manifest = files.read_json(digits)
    assert manifest["content"].startswith("c9e0b3a8d4a9")


def test_a_shard_is_plain_hdf5_with_its_description(digits: Path) -> None:
    with h5py.File(digits.parent / "train-00000.h5") as shard:
        assert shard["image"].shape == (1437, 28, 28, 1)
        assert shard["image"].chunks is None
        assert shard["image"].id.get_offset() % shards.PAGE == 0
        assert shards.text(shard, "schema") == shards.SCHEMA
        assert shards.text(shard, "licence") == "CC BY 4.0"
        assert len(shard.attrs["content"]) == 64


def test_digits_are_what_scikit_learn_has(digits: Path) -> None:
    from sklearn.datasets import load_digits

    taken = Reader(digits, "test").take(np.arange(360))
    original = load_digits()
    np.testing.assert_array_equal(taken["label"], original.target[::5])
    small = taken["image"][:, 3:27:3, 3:27:3, 0] / 255 * 16
    np.testing.assert_allclose(small, original.images[::5], atol=0.04)


def test_mnist_from_staged_files(tmp_path: Path) -> None:
    folder = make("mnist", staged("mnist"), tmp_path / "mnist")
    train, test = (
        Reader(folder / "manifest.json", "train"),
        Reader(folder / "manifest.json", "test"),
    )
    assert (train.examples, test.examples) == (60_000, 10_000)
    assert train.take(np.arange(5))["label"].tolist() == [5, 0, 4, 1, 9]
    assert files.read_json(folder / "manifest.json")["content"].startswith(MNIST_CONTENT)


MNIST_CONTENT = "01a9d624d204"


@pytest.mark.parametrize("separator", ["-idx", ".idx"])
def test_uncompressed_files_are_the_same_data(tmp_path: Path, separator: str) -> None:
    raw = tmp_path / "raw" / "sub"
    raw.mkdir(parents=True)
    for name in IDX:
        (raw / name.replace("-idx", separator)).write_bytes(
            gzip.decompress((staged("mnist") / f"{name}.gz").read_bytes())
        )
    folder = make("mnist", tmp_path / "raw", tmp_path / "mnist")
    assert files.read_json(folder / "manifest.json")["content"].startswith(MNIST_CONTENT)


def break_file(raw: Path, how: str) -> None:
    path = raw / f"{IDX[0]}.gz"
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        path.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    elif how == "another":
        path.write_bytes(gzip.compress(b"something else"))
    elif how == "empty":
        path.write_bytes(b"")


@pytest.mark.parametrize("how", ["missing", "truncated", "flipped", "another", "empty"])
def test_damaged_raw_files_are_named_and_nothing_is_left(tmp_path: Path, how: str) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(staged("mnist"), raw)
    break_file(raw, how)
    with pytest.raises(UserError, match=IDX[0]):
        make("mnist", raw, tmp_path / "mnist")
    assert not (tmp_path / "mnist").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_empty_raw_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match="raw: holds no train-images"):
        make("mnist", tmp_path / "raw", tmp_path / "mnist")


def test_fashion_mnist_wants_the_originals(tmp_path: Path) -> None:
    """The staged MNIST has the right shape but is not Fashion-MNIST."""
    with pytest.raises(UserError, match="checksum .* is not 8d4fb7e6c68d591d4c3dfef9ec88bf0d"):
        make("fashion_mnist", staged("mnist"), tmp_path / "fashion")


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Serve a folder over HTTP on this machine, as a mirror would."""
    servers = []

    def start(folder: Path) -> str:
        handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}/"

    yield start
    for server in servers:
        server.shutdown()


def mirrored(*mirrors: str, originals: Path | None = None) -> type:
    """torchvision's MNIST with other mirrors and, if given, the checksums of other files."""
    torchvision = pytest.importorskip("torchvision.datasets")
    attributes: dict[str, object] = {"mirrors": list(mirrors)}
    if originals:
        attributes["resources"] = [
            (f"{name}.gz", hashlib.md5((originals / f"{name}.gz").read_bytes()).hexdigest())
            for name in IDX
        ]
    return type("MNIST", (torchvision.MNIST,), attributes)


def test_a_corrupted_download_is_refused(tmp_path: Path, serve: Callable[[Path], str]) -> None:
    """torchvision's real download code, from a mirror that holds damaged files."""
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name in IDX:
        (mirror / f"{name}.gz").write_bytes(b"damaged")
    with pytest.raises(UserError, match="could not be downloaded") as told:
        idx.fetch(mirrored(serve(mirror)), tmp_path / "raw")
    assert len(str(told.value).splitlines()) == 1, "the last line says what to do"
    assert not (tmp_path / "raw").exists()


def test_a_download_goes_on_with_the_next_mirror(
    tmp_path: Path, serve: Callable[[Path], str]
) -> None:
    (tmp_path / "empty").mkdir()
    good = staged("mnist")
    idx.fetch(mirrored(serve(tmp_path / "empty"), serve(good), originals=good), tmp_path / "raw")
    found = sorted(path.name for path in (tmp_path / "raw").iterdir())
    assert found == sorted(f"{name}.gz" for name in IDX)
    make("mnist", tmp_path / "raw", tmp_path / "mnist")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "sync_file", full)
    with pytest.raises(UserError, match="no space left on device; free some space"):
        make("digits", tmp_path, tmp_path / "digits")
    assert list(tmp_path.iterdir()) == []


def test_labels_out_of_range_are_refused() -> None:
    images = np.zeros((2, 1, 1, 1), np.uint8)
    with pytest.raises(UserError, match="labels go from 0 to 2; they must be from 0 to 1"):
        prepare._checked("x", arrays.labelled(images, np.array([0, 2])), ["a", "b"])
    with pytest.raises(UserError, match="holds no examples"):
        prepare._checked("x", arrays.labelled(images[:0], np.array([], int)), ["a", "b"])


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.full((2, 1, 1, 1), 300), np.zeros(2, int), "image is int64; it must be one of uint8"),
        (np.zeros((2, 1, 1), np.uint8), np.zeros(2, int), "images are uint8 (2, 1, 1)"),
        (np.zeros((2, 1, 1, 1), np.uint8), np.array([0.5, 1]), "label is float64; it must be"),
        (np.zeros((2, 1, 1, 1), np.uint8), np.zeros((2, 3), int), "labels are int32 (2, 3)"),
        (np.zeros((2, 1, 1, 1), np.uint8), np.zeros(1, int), "2 images, 1 labels; each example"),
    ],
)
def test_what_could_not_be_stored_as_it_is_is_refused(
    images: np.ndarray, labels: np.ndarray, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(f"mine: source x: train: {message}")):
        prepare._checked("mine: source x: train", arrays.labelled(images, labels), ["a", "b"])
