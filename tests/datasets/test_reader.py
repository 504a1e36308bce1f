"""The reader gives what is stored, and never a damaged byte."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from lockstep import files
from lockstep.datasets import manifest, reader, shards
from lockstep.datasets.reader import Reader
from lockstep.errors import UserError
from tests import pictures
from tests.conftest import PATIENCE, environment


@pytest.fixture
def copied(digits: Path, tmp_path: Path) -> Path:
    shutil.copytree(digits.parent, tmp_path / "digits")
    return tmp_path / "digits" / "manifest.json"


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


def test_it_gives_what_h5py_gives(digits: Path) -> None:
    indices = np.array([[5, 0], [1436, 7]])
    taken = Reader(digits, "train").take(indices)
    with h5py.File(digits.parent / "train-00000.h5") as shard:
        for name, array in taken.items():
            np.testing.assert_array_equal(array, shard[name][()][indices])
    assert {name: array.dtype for name, array in taken.items()} == {
        "image": np.uint8,
        "label": np.int32,
    }


def test_no_buffer_is_given_twice(digits: Path) -> None:
    """JAX on a CPU may alias what it is given."""
    split = Reader(digits, "train")
    one, two = (split.take(np.arange(4))["image"] for _ in range(2))
    assert not np.shares_memory(one, two)
    assert one.flags.writeable


def test_a_flipped_byte_anywhere_in_the_data_is_found(copied: Path) -> None:
    path = copied.parent / "train-00000.h5"
    with h5py.File(path) as shard:
        start = shard["image"].id.get_offset()
        block = int(shard.attrs["block_rows"])
    flip(path, start + 784 * 100 + 400)
    with pytest.raises(UserError, match=rf"train-00000.h5: block {100 // block} of image"):
        Reader(copied, "train")


def test_a_damaged_block_of_a_large_split_stops_before_its_first_use(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "VERIFY_AT_START", 0)
    path = copied.parent / "train-00000.h5"
    with h5py.File(path) as shard:
        start = shard["image"].id.get_offset()
        block = int(shard.attrs["block_rows"])
    flip(path, start + 784 * (block + 1))
    split = Reader(copied, "train")
    split.take(np.arange(10))
    with pytest.raises(UserError, match="block 1 of image"):
        split.take(np.array([block + 50]))


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_byte_in_the_format_itself_is_found(copied: Path, seed: int) -> None:
    """Superblock, object headers, attributes, checksums: all outside the arrays of examples."""
    path = copied.parent / "test-00000.h5"
    with h5py.File(path) as shard:
        data = range(
            shard["image"].id.get_offset(),
            shard["image"].id.get_offset() + shard["image"].id.get_storage_size(),
        )
    used = [k for k, byte in enumerate(path.read_bytes()) if byte and k not in data]
    flip(path, used[int(np.random.default_rng(seed).integers(len(used)))])
    with pytest.raises(UserError, match="test-00000.h5"):
        Reader(copied, "test")


@pytest.mark.parametrize("bit", range(8))
def test_what_describes_a_large_split_is_found_to_be_damaged_or_is_not_used(
    copied: Path, monkeypatch: pytest.MonkeyPatch, bit: int
) -> None:
    """Of a large split the shards are not read whole before HDF5 reads what it needs."""
    monkeypatch.setattr(reader, "VERIFY_AT_START", 0)
    path = copied.parent / "test-00000.h5"
    sound = path.read_bytes()
    images = Reader(copied, "test").take(np.arange(360))["image"]
    known = 0
    for position in range(sound.index(b"OHDR"), sound.index(b"OHDR") + 400, 13):
        content = bytearray(sound)
        content[position] ^= 1 << bit
        path.write_bytes(content)
        try:
            taken = Reader(copied, "test").take(np.arange(360))["image"]
            np.testing.assert_array_equal(taken, images)
        except UserError as error:
            assert "test-00000.h5" in str(error)
            known += 1
    assert known > 5


def test_texts_do_not_lie_where_hdf5_has_no_checksums(copied: Path) -> None:
    """One bit there, in the size of a text, and reading it would never end."""
    assert b"GCOL" not in (copied.parent / "test-00000.h5").read_bytes()


def test_a_small_split_is_verified_before_its_texts_are_read(copied: Path) -> None:
    path = copied.parent / "test-00000.h5"
    with h5py.File(path, "a", libver=("v110", "v110")) as shard:
        del shard.attrs["schema"]
        shard.attrs["schema"] = shards.SCHEMA  # of variable length, in the heap
    described = json.loads(copied.read_text())
    (entry,) = described["splits"]["test"]["shards"]
    entry |= {"bytes": path.stat().st_size, "sha256": files.sha256_file(path)}
    files.write_json(copied, described)
    content = bytearray(path.read_bytes())
    content[content.index(b"GCOL") + 25] ^= 8
    path.write_bytes(content)
    line = "import sys, pathlib; from lockstep.datasets.reader import Reader; "
    line += "Reader(pathlib.Path(sys.argv[1]), 'test')"
    command = [sys.executable, "-c", line, str(copied)]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    assert "damaged outside its examples" in done.stderr


def test_a_truncated_shard_is_named(copied: Path) -> None:
    path = copied.parent / "train-00000.h5"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UserError, match=r"train-00000.h5: has \d+ bytes instead of \d+"):
        Reader(copied, "train")


def test_a_missing_shard_is_named(copied: Path) -> None:
    (copied.parent / "test-00000.h5").unlink()
    with pytest.raises(UserError, match="test-00000.h5: no such shard"):
        Reader(copied, "test")


def test_a_shard_of_another_dataset_is_refused(copied: Path) -> None:
    manifest = json.loads(copied.read_text())
    manifest["splits"]["train"]["shards"][0]["content"] = "0" * 64
    files.write_json(copied, manifest)
    with pytest.raises(UserError, match="is not the shard that its manifest describes"):
        Reader(copied, "train")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": "other/1"}'])
def test_a_manifest_that_is_none_is_refused(copied: Path, text: str) -> None:
    copied.write_text(text)
    with pytest.raises(UserError, match="manifest.json"):
        Reader(copied, "train")


def test_several_shards_read_as_one(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (25, 4, 4, 3), np.uint8)
    labels = random.integers(0, 9, 25).astype(np.int32)
    entries = []
    for number, part in enumerate(np.split(np.arange(25), [10, 11])):
        path = tmp_path / f"train-{number:05d}.h5"
        entries.append(pictures.shard(path, images[part], labels[part]))
    made = manifest.make(pictures.said((4, 4, 3)), {"train": entries})
    files.write_json(tmp_path / "manifest.json", made)
    indices = random.permutation(25).reshape(5, 5)
    taken = Reader(tmp_path / "manifest.json", "train").take(indices)
    np.testing.assert_array_equal(taken["image"], images[indices])
    np.testing.assert_array_equal(taken["label"], labels[indices])


def test_there_may_be_more_shards_than_files_a_process_may_open(tmp_path: Path) -> None:
    """ImageNet has 940; the usual limit is 1,024, of which a run needs others."""
    entries = []
    for number in range(300):
        path = tmp_path / f"train-{number:05d}.h5"
        images = np.full((2, 2, 2, 3), number % 256, np.uint8)
        entries.append(pictures.shard(path, images, np.array([0, 1])))
    made = manifest.make(pictures.said((2, 2, 3)), {"train": entries})
    files.write_json(tmp_path / "manifest.json", made)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (250, hard))
    try:
        taken = Reader(tmp_path / "manifest.json", "train").take(np.array([599, 2]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert taken["image"][:, 0, 0, 0].tolist() == [299 % 256, 1]
    assert taken["label"].tolist() == [1, 0]


def test_too_few_open_files_are_no_damage(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(reader, "_allow_files", lambda count: None)
    lowest = os.dup(0)  # that is free; where one is left out below, there would be room for more
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, hard))
    try:
        with pytest.raises(UserError, match=f"too many open files: a process may have {hard} and"):
            for _ in range(9):
                Reader(digits, "train")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("at_start", [True, False])
def test_a_disk_that_fails_is_no_reason_to_remove_a_dataset(
    digits: Path, monkeypatch: pytest.MonkeyPatch, at_start: bool
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files if at_start else h5py, "sha256_file" if at_start else "File", fail)
    with pytest.raises(UserError, match=r"cannot be read \(Input/output error\); it need not be"):
        Reader(digits, "train")


def test_a_large_record_is_a_block_by_itself(tmp_path: Path) -> None:
    """Reading one must not mean to read its neighbours."""
    for size, rows in ((128, 21), (256, 1), (28, 445)):
        images = np.zeros((3, size, size, 3), np.uint8)
        pictures.shard(tmp_path / "a.h5", images, np.zeros(3, int))
        with h5py.File(tmp_path / "a.h5") as shard:
            assert shard.attrs["block_rows"] == rows


def test_a_damaged_record_of_many_shards_stops_before_its_first_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "VERIFY_AT_START", 0)
    entries = []
    for number in range(3):
        path = tmp_path / f"train-{number:05d}.h5"
        images = np.full((4, 160, 160, 3), number, np.uint8)
        entries.append(pictures.shard(path, images, np.arange(4)))
        with h5py.File(path) as shard:
            start = shard["image"].id.get_offset()
        if number == 1:
            flip(path, start + images[0].nbytes * 2 + 5)
    made = manifest.make(pictures.said((160, 160, 3)), {"train": entries})
    files.write_json(tmp_path / "manifest.json", made)
    split = Reader(tmp_path / "manifest.json", "train")
    split.take(np.array([0, 5, 11, 4]))
    split.take(np.array([0, 5, 11, 4]))
    with pytest.raises(UserError, match=r"train-00001.h5: block 2 of image \(rows 2 to 2\)"):
        split.take(np.array([0, 6]))


LOCKED = """
import fcntl, sys
from pathlib import Path
from lockstep.datasets.reader import Reader
shard = next(Path(sys.argv[1]).parent.glob("train*.h5"))
held = open(shard)
fcntl.flock(held, fcntl.LOCK_EX)  # as where locks do not work
print(Reader(Path(sys.argv[1]), "train").examples)
"""


def test_no_lock_is_asked_for_whatever_the_site_has_hdf5_do(digits: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOCKED, digits],
        env={**environment(), "HDF5_USE_FILE_LOCKING": "TRUE"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "1437\n", done.stderr
