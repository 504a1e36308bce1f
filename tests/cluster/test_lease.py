"""Who may work in a study's folder, where the file system carries no locks between hosts."""

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lockstep.cluster import lease
from lockstep.errors import UserError
from tests.conftest import environment


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


def test_a_workflow_that_ends_lets_go(tmp_path: Path) -> None:
    take = "from pathlib import Path; from lockstep.cluster import lease; lease.take(Path('.'))"
    subprocess.run([sys.executable, "-c", take], cwd=tmp_path, env=environment(), check=True)
    assert (tmp_path / lease.NAME).read_text() == ""


@pytest.mark.parametrize(("process", "refused"), [("living", True), ("dead", False)])
def test_without_locks_a_holder_on_this_host_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process: str, refused: bool
) -> None:
    def flock(descriptor: int, kind: int) -> None:
        raise OSError(errno.ENOSYS, "no locks here")

    other = subprocess.Popen(["sleep", "60"])
    if process == "dead":
        other.kill()
        other.wait()
    holder = {"host": socket.gethostname(), "process": other.pid, "since": time.time()}
    (tmp_path / lease.NAME).write_text(json.dumps(holder))
    monkeypatch.setattr(fcntl, "flock", flock)
    try:
        if refused:
            with pytest.raises(UserError, match=f"process {other.pid}, .*; wait for it, or stop"):
                lease.take(tmp_path)
        else:
            lease.take(tmp_path)
    finally:
        other.kill()
        other.wait()
