"""A disk that is full while a run writes: one line, status 2, and the run goes on afterwards."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import small_disk, summary, train

BLOCK = "mnist_cnn/torch-eager/1x1/seed-0"


@pytest.fixture
def little(tmp_path: Path) -> Iterator[Path]:
    """The results' folder on a disk of its own."""
    with small_disk(tmp_path / "results", "800k") as folder:
        yield folder


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
