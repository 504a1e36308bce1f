"""Where an image grows: nobody takes it for abandoned while somebody builds there."""

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lockstep import files
from lockstep.errors import UserError
from lockstep.images import workspace
from lockstep.images.workspace import OWNER, PREFIX
from tests.conftest import environment, runs, wait_for


def test_a_folder_is_locked_before_another_build_can_see_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = fcntl.flock, []

    def flock(file: object, kind: int) -> None:
        seen.append(list(tmp_path.glob(f"{PREFIX}*")))
        real(file, kind)

    monkeypatch.setattr(fcntl, "flock", flock)
    with workspace.workspace(tmp_path) as work:
        assert len(seen) == 2  # of the folder, then of its own place in it
        assert not any(seen)
        assert work.parent == tmp_path
        with workspace.workspace(tmp_path) as other:
            assert work.is_dir()
            assert other != work
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """What a killed build left."""
    folder = tmp_path / f"{PREFIX}left"
    folder.mkdir()
    (folder / OWNER).touch()
    (folder / "root").mkdir()
    return folder


def test_what_a_killed_build_left_goes(tmp_path: Path, left: Path) -> None:
    with workspace.workspace(tmp_path):
        assert not left.exists()


def test_what_cannot_be_removed_is_named_and_tried_again(
    tmp_path: Path, left: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = files.remove
    monkeypatch.setattr(files, "remove", lambda path: None)  # as if another user's
    monkeypatch.setenv("PATH", str(tmp_path))  # without unshare
    with workspace.workspace(tmp_path):
        assert f"{left}: cannot be removed" in capsys.readouterr().err
        assert (left / OWNER).exists()
    monkeypatch.setattr(files, "remove", real)
    with workspace.workspace(tmp_path):
        assert not left.exists()


def test_what_others_will_still_write_is_not_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    free = 10 << 20
    usage = SimpleNamespace(free=free)
    monkeypatch.setattr(workspace.host.shutil, "disk_usage", lambda _: usage)
    first = workspace.workspace(tmp_path, needed=6 << 20)
    work = first.__enter__()
    (work / "root").write_bytes(bytes(2 << 20))

    def sleep(_: float) -> None:
        assert "other builds here included; waiting" in capsys.readouterr().err
        first.__exit__(None, None, None)

    monkeypatch.setattr(workspace.time, "sleep", sleep)
    with workspace.workspace(tmp_path, needed=6 << 20):  # beside the 4 MiB that it said it needs
        assert work.exists()
        with workspace.workspace(tmp_path, needed=1 << 20):
            assert not work.exists()
    with (
        pytest.raises(UserError, match="needs 1024.0 GiB"),
        workspace.workspace(tmp_path, needed=1 << 40),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_makes_a_root_outlives_the_build(tmp_path: Path) -> None:
    """Told to stop while mmdebstrap's own children write."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "build").mkdir()
    tool = tmp_path / "bin" / "mmdebstrap"
    tool.write_text(f"#!/bin/sh\nsleep 900 &\necho $! >{tmp_path}/child\nwait\n")
    tool.chmod(0o755)
    code = """if True:
        import sys
        from pathlib import Path
        from lockstep.images import root, workspace
        with workspace.workspace(Path(sys.argv[1])) as work:
            root.make(work / "root", "http://mirror.example/debian")
    """
    path = f"{tool.parent}:{os.environ['PATH']}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "build"], env={**environment(), "PATH": path}
    )
    wait_for(lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text())
    child = Path("/proc", (tmp_path / "child").read_text().strip())
    process.send_signal(signal.SIGTERM)
    process.wait()
    wait_for(lambda: not runs(int(child.name)))
    assert list((tmp_path / "build").iterdir()) == []
