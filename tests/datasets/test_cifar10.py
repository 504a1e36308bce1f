"""CIFAR-10's pickled batches: read as published, and never opened unless they are."""

import functools
import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from lockstep import files
from lockstep.datasets import download, prepare
from lockstep.datasets.reader import Reader
from lockstep.datasets.sources import cifar10
from lockstep.errors import UserError

ROWS = 20


class Python2(pickle._Pickler):
    """Writes texts as Python 2 did, which made the original files."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, value: bytes) -> None:
        self.write(b"T" + len(value).to_bytes(4, "little") + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def batch(seed: int) -> bytes:
    """A small batch in the original's form."""
    random = np.random.default_rng(seed)
    content = {
        b"batch_label": b"a batch",
        b"labels": random.integers(0, 10, ROWS).tolist(),
        b"data": random.integers(0, 256, (ROWS, 3072), np.uint8),
        b"filenames": [b"a.png"] * ROWS,
    }
    stream = io.BytesIO()
    Python2(stream, protocol=2).dump(content)
    return stream.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


NAMES = [name for batches in cifar10.SPLITS.values() for name in batches]
BATCHES = {name: batch(seed) for seed, name in enumerate(NAMES)}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the published checksums be those of the small batches."""
    splits = {
        split: {name: md5(BATCHES[name]) for name in batches}
        for split, batches in cifar10.SPLITS.items()
    }
    monkeypatch.setattr(cifar10, "SPLITS", splits)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, content in BATCHES.items():
        (folder / name).write_bytes(content)
    return tmp_path / "raw"


def packed(raw: Path) -> Path:
    """The batches as the archive that is published."""
    path = raw / cifar10.ARCHIVE
    with tarfile.open(path, "w:gz") as archive:
        archive.add(raw / "cifar-10-batches-py", "cifar-10-batches-py")
    for name in NAMES:
        (raw / "cifar-10-batches-py" / name).unlink()
    (raw / "cifar-10-batches-py").rmdir()
    return path


def make(raw: Path) -> Path:
    folder = raw.parent / "made"
    prepare.prepare("cifar", {"source": "cifar10", "options": {}}, "id", raw, folder)
    return folder / "manifest.json"


def test_batches_become_images(raw: Path, known: None) -> None:
    manifest = make(raw)
    train, test = Reader(manifest, "train"), Reader(manifest, "test")
    assert (train.examples, test.examples) == (5 * ROWS, ROWS)
    images, labels = train.take(np.array([ROWS + 3])).values()
    original = pickle.loads(BATCHES["data_batch_2"], encoding="latin1")
    assert labels[0] == original["labels"][3]
    np.testing.assert_array_equal(images[0, :, :, 0], original["data"][3][:1024].reshape(32, 32))
    np.testing.assert_array_equal(images[0, :, :, 2], original["data"][3][2048:].reshape(32, 32))
    assert files.read_json(manifest)["classes"][3] == "cat"


def test_the_archive_is_the_same_data(raw: Path, known: None) -> None:
    content = files.read_json(make(raw))["content"]
    files.remove(raw.parent / "made")
    packed(raw)
    assert files.read_json(make(raw))["content"] == content


def test_torchvision_reads_the_same(raw: Path, known: None) -> None:
    torchvision = pytest.importorskip("torchvision.datasets")
    splits = cifar10.SPLITS
    meta = raw / "cifar-10-batches-py" / "batches.meta"
    meta.write_bytes(pickle.dumps({"label_names": list(cifar10.CLASSES)}))
    attributes = {
        "train_list": list(splits["train"].items()),
        "test_list": list(splits["test"].items()),
        "meta": {"filename": meta.name, "key": "label_names", "md5": md5(meta.read_bytes())},
    }
    theirs = type("CIFAR10", (torchvision.CIFAR10,), attributes)(raw, train=True)
    images, labels = Reader(make(raw), "train").take(np.arange(5 * ROWS)).values()
    np.testing.assert_array_equal(images, theirs.data)
    assert labels.tolist() == theirs.targets


def test_files_that_are_not_the_published_ones_are_refused(raw: Path) -> None:
    with pytest.raises(
        UserError, match="data_batch_1: checksum .* is not c99cafc152244af753f735de"
    ):
        make(raw)


def test_a_changed_pickle_is_not_opened(raw: Path, known: None, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "harm",)

    (raw / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(UserError, match="data_batch_3: checksum"):
        make(raw)
    assert not (tmp_path / "harm").exists()


def test_a_pickle_that_asks_for_more_than_arrays_is_refused(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with the right checksum."""

    class Harm:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "harm",)

    harm = pickle.dumps(Harm())
    (raw / "cifar-10-batches-py" / "data_batch_1").write_bytes(harm)
    monkeypatch.setattr(cifar10, "SPLITS", {"train": {"data_batch_1": md5(harm)}})
    with pytest.raises(UserError, match="data_batch_1: is not a batch of CIFAR-10 .it asks for"):
        make(raw)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("how", ["missing", "truncated archive", "no folder", "empty folder"])
def test_what_is_missing_or_damaged_is_named(raw: Path, known: None, how: str) -> None:
    if how == "missing":
        (raw / "cifar-10-batches-py" / "test_batch").unlink()
        message = "raw: holds neither test_batch nor cifar-10-python.tar.gz"
    elif how == "truncated archive":
        path = packed(raw)
        path.write_bytes(path.read_bytes()[:5000])
        message = "cifar-10-python.tar.gz: damaged"
    else:
        raw = raw.parent / "other"
        message = "other: no such folder; it should hold cifar-10-python.tar.gz or its batches"
        if how == "empty folder":
            raw.mkdir()
            message = "other: holds neither data_batch_1 nor"
    with pytest.raises(UserError, match=message):
        make(raw)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that is served over HTTP on this machine, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{serving.server_address[1]}/{cifar10.ARCHIVE}"
        serving.shutdown()


def test_it_is_downloaded_through_torchvision(
    raw: Path, known: None, server: tuple[Path, str], tmp_path: Path
) -> None:
    """torchvision's real code with another address and the checksums of the small files."""
    torchvision = pytest.importorskip("torchvision.datasets")
    folder, url = server
    meta = raw / "cifar-10-batches-py" / "batches.meta"
    meta.write_bytes(pickle.dumps({"label_names": list(cifar10.CLASSES)}))
    attributes = {
        "url": url,
        "train_list": list(cifar10.SPLITS["train"].items()),
        "test_list": list(cifar10.SPLITS["test"].items()),
        "meta": {"filename": meta.name, "key": "label_names", "md5": md5(meta.read_bytes())},
    }
    expected = files.read_json(make(raw))["content"]
    with tarfile.open(folder / cifar10.ARCHIVE, "w:gz") as archive:
        archive.add(meta.parent, meta.parent.name)
    good = md5((folder / cifar10.ARCHIVE).read_bytes())
    for checksum in ("0" * 32, good):
        dataset = type("CIFAR10", (torchvision.CIFAR10,), {**attributes, "tgz_md5": checksum})
        if checksum != good:
            with pytest.raises(UserError, match="CIFAR10 could not be downloaded .* put cifar-10-"):
                download.fetch(dataset, tmp_path / "new" / "raw", "*_batch*", cifar10.ARCHIVE)
            assert not (tmp_path / "new" / "raw").exists()
        else:
            download.fetch(dataset, tmp_path / "new" / "raw", "*_batch*", cifar10.ARCHIVE)
    assert files.read_json(make(tmp_path / "new" / "raw"))["content"] == expected
