"""Included data, images and states, exchanged together with every hash that names them."""

import contextlib
import hashlib
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import safetensors.numpy

from lockstep import files
from lockstep.archive import included, inner, layout, opened, scan, verify
from lockstep.datasets import shards
from lockstep.images.identity import recipe
from lockstep.workloads import weights
from tests.archive import tamper
from tests.archive.conftest import listed, wrong
from tests.archive.tamper import Contents
from tests.conftest import ROOT

RUNS = "results/small/runs/mnist_cnn"
Read = Callable[[Contents], scan.Reader]
FINAL = f"{RUNS}/jax-jit/1x1/seed-0/final.safetensors"
INITIAL = "results/small/weights/mnist_cnn/seed-1.safetensors"


def other_shard(contents: Contents) -> None:
    """Exchange a shard's labels, with the hash of the file, and say that it came from elsewhere."""
    name = next(n for n in contents if n.endswith("train-00000.h5"))
    packed = io.BytesIO(contents[name])
    with h5py.File(packed, "r+") as shard:
        shard["labels"][:] = 0
    contents[name] = packed.getvalue()

    def fit(told: dict) -> None:
        told["splits"]["train"]["shards"][0]["sha256"] = hashlib.sha256(contents[name]).hexdigest()

    tamper.edit_json(contents, name.replace("train-00000.h5", "manifest.json"), fit)


def other_content(contents: Contents) -> None:
    name = next(n for n in contents if n.startswith("data/") and n.endswith("manifest.json"))

    def fit(told: dict) -> None:
        told["splits"]["test"]["shards"][0]["content"] = "0" * 64

    tamper.edit_json(contents, name, fit)


def half(content: bytes) -> bytes:
    state = safetensors.numpy.load(content)
    return safetensors.numpy.save({name: value / 2 for name, value in state.items()})


FORGED: dict[str, Callable[[Contents], object]] = {
    "train-00000.h5: does not hold what its manifest says": other_shard,
    "manifest.json: its content is not that of its shards": other_content,
    f"{INITIAL}: is not what mnist_cnn/jax-jit/1x1/seed-1 was trained from": lambda contents: (
        contents.update({INITIAL: half(contents[INITIAL])})
    ),
    f"{FINAL}: does not hold what the record of mnist_cnn/jax-jit/1x1/seed-0 says": lambda told: (
        told.update({FINAL: half(told[FINAL])})
    ),
    f"{RUNS}/torch-eager/1x1/seed-0/final.safetensors: does not hold": lambda contents: (
        tamper.edit_json(
            contents,
            f"{RUNS}/torch-eager/1x1/seed-0/summary.json",
            lambda told: told["weights"].update(final="0" * 64),
        )
    ),
}
"""By the finding that it must become."""


def test_what_is_included_is_what_manifests_and_records_name(
    everything: Path, tmp_path: Path
) -> None:
    file = Path(shutil.copy(everything, tmp_path / "x.zip"))
    checks = {check.name: check for check in verify.verify(file)}
    assert wrong(list(checks.values())) == []
    assert checks["data"].says == "2 shards and images are those of their manifests"
    assert checks["weights"].says == "6 initial and final states are those of the records"

    def forge(contents: Contents) -> None:
        for change in FORGED.values():
            change(contents)

    tamper.forge(file, forge)
    found = wrong(verify.verify(file))
    missed = [names for names in FORGED if not any(names in problem for problem in found)]
    assert missed == [], found


def test_without_h5py_it_says_what_is_not_checked(
    everything: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    (check,) = [check for check in verify.verify(everything) if check.name == "data"]
    assert check.status == "holds"
    assert check.says.endswith("; their arrays are not hashed, as h5py is not installed")


# Within files ---------------------------------------------------------------------------------


@pytest.fixture
def read(tmp_path: Path) -> Iterator[Read]:
    """Write an archive of these members and read it."""
    with contextlib.ExitStack() as stack:

        def opened(contents: Contents) -> scan.Reader:
            tamper.store(tmp_path / "x.zip", contents)
            return scan.Reader(stack.enter_context(open(tmp_path / "x.zip", "rb")))

        yield opened


def test_a_state_has_the_digest_that_training_gave_it(read: Read) -> None:
    state = {
        "param/a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "buffer/step": np.array(3, np.int64),
        "momentum/a": np.zeros((0, 4), np.float64),
    }
    content = safetensors.numpy.save(state, {"made": "here"})
    reader = read({"before": b"x", "a.safetensors": content})
    member = reader.members["a.safetensors"]
    assert inner.state(reader, member) == weights.digest(safetensors.numpy.load(content))


@pytest.mark.parametrize("header", [b"", b"{" * 8, b'{"a":{"dtype":"F32","shape":[9],'
                                    b'"data_offsets":[0,36]}}', b'{"a":{"dtype":"F32",'
                                    b'"shape":[1],"data_offsets":[0,9]}}'])  # fmt: skip
def test_what_is_no_state_is_an_error(read: Read, header: bytes) -> None:
    content = len(header).to_bytes(8, "little") + header
    reader = read({"a": content})
    with pytest.raises(ValueError):
        inner.state(reader, reader.members["a"])


def test_a_shard_has_the_content_that_it_was_written_with(read: Read, tmp_path: Path) -> None:
    images = np.arange(5000 * 12, dtype=np.uint8).reshape(5000, 2, 2, 3)
    labels = np.arange(5000, dtype=np.int32)
    said = shards.write(tmp_path / "a.h5", images, labels, {"split": "train"})
    content = (tmp_path / "a.h5").read_bytes()
    reader = read({"before": b"x", "a.h5": content})
    assert inner.shard(reader, reader.members["a.h5"]) == said


# Images ---------------------------------------------------------------------------------------


def images(read: Read, tmp_path: Path, change: Callable[[Contents], object]) -> list[str]:
    """What is found of an archive with images that the archived definitions make, changed."""
    contents: Contents = {
        f"source/{path.relative_to(ROOT)}": path.read_bytes()
        for path in (ROOT / "containers").rglob("*")
        if path.is_file()
    }
    for name in ("base", "torch"):
        made = recipe(name)
        told = {
            "name": name,
            "cuda_generation": made.cuda,
            "identity": made.identity,
            "determined_by": made.determined_by(),
            "sif": {"sha256": "0" * 64},
        }
        contents[f"data/images/{made.folder}/manifest.json"] = json.dumps(told).encode()
    change(contents)
    reader = read(contents)
    archive = opened.Opened(
        path=tmp_path / "x.zip", reader=reader, manifest={"files": listed(contents)}, checks=[]
    )
    for name in [name for name in contents if name.startswith(layout.DATA)]:
        files.write_bytes(tmp_path / name, contents[name])
    return list(included.data(archive, tmp_path / "data").wrong)


def other(name: str) -> Callable[[Contents], object]:
    return lambda contents: contents.update({name: contents[name] + b"\n"})


def other_parent(contents: Contents) -> None:
    name = next(n for n in contents if n.startswith("data/images/base-"))
    told = json.loads(contents.pop(name))
    told["determined_by"]["epoch"] = 0
    told["identity"] = files.digest(told["determined_by"])
    contents[f"data/images/base-{told['identity'][:12]}/manifest.json"] = json.dumps(told).encode()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other("source/containers/base.def"), "containers/base.def: is not what image base-"),
        (other("source/containers/install.sh"), "containers/install.sh: is not what image torch-"),
        (other("source/containers/locks/cuda12-torch.txt"), "cuda12-torch.txt: is not what image"),
        (other_parent, "it was not built from the base image that is described"),
    ],
)
def test_images_are_those_of_the_archived_definitions(
    read: Read, tmp_path: Path, change: Callable[[Contents], object], says: str
) -> None:
    assert any(says in problem for problem in images(read, tmp_path, change))


def test_untouched_definitions_are_theirs(read: Read, tmp_path: Path) -> None:
    assert images(read, tmp_path, len) == []
