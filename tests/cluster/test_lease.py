"""Who may work in a study's folder, where the file system carries no locks between hosts."""

import json
import os
import time
from pathlib import Path

import pytest

from lockstep.cluster import lease
from lockstep.errors import UserError


@pytest.fixture(autouse=True)
def _let_go():
    yield
    lease.release()


def held_elsewhere(folder: Path, *, silent: float) -> Path:
    """A folder that a workflow on another host holds, which showed that it lives so long ago."""
    path = folder / lease.NAME
    path.write_text(json.dumps({"host": "login2", "process": 7, "since": time.time() - 1000}))
    os.utime(path, (time.time() - silent, time.time() - silent))
    return path


def test_a_living_workflow_on_another_host_keeps_its_folder(tmp_path: Path) -> None:
    path = held_elsewhere(tmp_path, silent=lease.HEARTBEAT)
    before = path.read_text()
    with pytest.raises(UserError, match="in use by a workflow on login2 .process 7, .* 2 minutes"):
        lease.take(tmp_path)
    assert path.read_text() == before
    assert [file.name for file in tmp_path.iterdir()] == [lease.NAME]


def test_a_dead_workflow_on_another_host_gives_way(tmp_path: Path) -> None:
    path = held_elsewhere(tmp_path, silent=lease.SILENT + 1)
    lease.take(tmp_path)
    assert json.loads(path.read_text())["process"] == os.getpid()


def test_the_holder_shows_that_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT", 0.05)
    lease.take(tmp_path)
    path = tmp_path / lease.NAME
    os.utime(path, (1, 1))
    deadline = time.monotonic() + 10
    while path.stat().st_mtime == 1 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert time.time() - path.stat().st_mtime < lease.SILENT


def test_what_is_let_go_can_be_taken(tmp_path: Path) -> None:
    lease.take(tmp_path)
    lease.release()
    assert (tmp_path / lease.NAME).read_text() == ""
    lease.take(tmp_path)
