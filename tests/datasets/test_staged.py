"""Raw files as people stage them: in odd places, or not for this user to read."""

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep.datasets import prepare, staged
from lockstep.errors import UserError
from tests.conftest import PATIENCE, environment
from tests.datasets import pictures

MNIST = "train-images-idx3-ubyte"


def make(source: str, raw: Path) -> None:
    prepare.prepare("name", {"source": source, "options": {}}, "id", raw, raw.parent / "made")


def unprivileged(source: str, raw: Path) -> str:
    """Preprocess as a user whom modes of files concern; returns what went wrong."""
    line = "import sys, pathlib; from lockstep.datasets import prepare; raw = pathlib.Path("
    line += f"sys.argv[1]); prepare.prepare('name', dict(source={source!r}, options=dict(size=8) "
    line += f"if {source!r} == 'image_folder' else dict()), 'id', raw, raw.parent / 'made')"
    command = [sys.executable, "-c", line, str(raw)]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may read everything, and setpriv is not here")
        command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *command]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    return done.stderr.strip().splitlines()[-1]


def test_a_folder_may_have_the_name_of_the_file_that_it_holds(tmp_path: Path) -> None:
    """As Kaggle's copy of MNIST is unpacked."""
    inner = tmp_path / "raw" / MNIST / MNIST
    inner.parent.mkdir(parents=True)
    inner.write_bytes(b"not the real one")
    assert staged.find(tmp_path / "raw", MNIST) == inner
    with pytest.raises(UserError, match=f"{MNIST}/{MNIST}: checksum .* is not ba891046e650"):
        make("mnist", tmp_path / "raw")


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("mnist", f"{MNIST}.gz", "raw: holds no train-images-idx3-ubyte.gz"),
        ("cifar10", "data_batch_1", "raw: holds neither data_batch_1 nor"),
        ("cifar10", "cifar-10-python.tar.gz", "raw: holds neither data_batch_1 nor"),
    ],
)
@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_has_the_name_and_is_no_file_is_not_taken_for_it(
    tmp_path: Path, source: str, name: str, message: str, kind: str
) -> None:
    (tmp_path / "raw").mkdir()
    (os.mkfifo if kind == "pipe" else os.mkdir)(tmp_path / "raw" / name)
    with pytest.raises(UserError, match=message):
        make(source, tmp_path / "raw")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("mnist", f"{MNIST}.gz"),
        ("cifar10", "data_batch_1"),
        ("cifar10", "cifar-10-python.tar.gz"),
        ("mnist", "."),
    ],
)
def test_what_this_user_may_not_read_is_named(tmp_path: Path, source: str, name: str) -> None:
    path = tmp_path / "raw" / name
    (tmp_path / "raw").mkdir()
    if name != ".":
        path.write_bytes(gzip.compress(b"content"))
    path.chmod(0)
    said = unprivileged(source, tmp_path / "raw")
    path.chmod(0o700)
    assert said == f"lockstep.errors.UserError: {path}: cannot be read (Permission denied)"


@pytest.mark.parametrize("what", [".", "train/ant"])
def test_a_folder_of_images_that_this_user_may_not_read_is_named(tmp_path: Path, what: str) -> None:
    path = pictures.folder(tmp_path / "raw") / what
    path.chmod(0)
    said = unprivileged("image_folder", tmp_path / "raw")
    path.chmod(0o700)
    assert said.startswith(f"lockstep.errors.UserError: {path}")
    assert "Permission denied" in said
