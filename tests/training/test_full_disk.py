"""A disk that is full while a run writes: one line, status 2, and the run goes on afterwards."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import summary, train

BLOCK = "mnist_cnn/torch-eager/1x1/seed-0"


@pytest.fixture
def little(tmp_path: Path) -> Iterator[Path]:
    """The results' folder on a disk of its own."""
    folder = tmp_path / "results"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def leave(folder: Path, room: int) -> None:
    """Fill a disk until `room` bytes are left."""
    disk = os.statvfs(folder)
    (folder / "filler").write_bytes(bytes(disk.f_bavail * disk.f_frsize - room))


@pytest.mark.parametrize("room", [8 << 10, 20 << 10, 250 << 10])
def test_a_full_disk_while_training(little: Path, study_of, room: int) -> None:
    """Room for nothing but the run's specification; for some records; for one checkpoint."""
    study = study_of(tracking={"tensorboard": True}, checkpoints={"steps": 5})
    leave(little, room)
    done = train(study, BLOCK, check=False)
    assert done.returncode == 2, done.stderr
    assert "no space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert not study.manifest(BLOCK).exists()
    assert not (study.root / "runs" / BLOCK / "summary.json").exists()

    (little / "filler").unlink()
    train(study, BLOCK)
    assert summary(study, BLOCK)["status"] == "finished"
