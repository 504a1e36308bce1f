"""Where an image grows: nobody takes it for abandoned while somebody builds there."""

import fcntl
from pathlib import Path

import pytest

from lockstep.images import workspace
from lockstep.images.workspace import OWNER, PREFIX


def test_a_folder_is_locked_before_another_build_can_see_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = fcntl.flock, []

    def flock(file: object, kind: int) -> None:
        seen.append(list(tmp_path.glob(f"{PREFIX}*")))
        real(file, kind)

    monkeypatch.setattr(fcntl, "flock", flock)
    with workspace.workspace(tmp_path) as work:
        assert seen == [[]]
        assert work.parent == tmp_path
        with workspace.workspace(tmp_path) as other:
            assert work.is_dir()
            assert other != work
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_build_left_goes(tmp_path: Path) -> None:
    left = tmp_path / f"{PREFIX}left"
    left.mkdir()
    (left / OWNER).touch()
    with workspace.workspace(tmp_path):
        assert not left.exists()
