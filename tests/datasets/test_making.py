"""A dataset is made once, by one at a time; what is finished stays for those who read it."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lockstep.datasets import prepare
from lockstep.datasets.sources import digits
from tests.conftest import PATIENCE, environment, wait_for
from tests.datasets import pictures


def make(folder: Path, part: tuple[int, int] = (1, 1)) -> int:
    """Preprocess the digits; returns the manifest's inode, 0 if there is none."""
    entry = {"source": "digits", "options": {}}
    prepare.prepare("digits", entry, "id", Path("none"), folder, part=part)
    path = folder / "manifest.json"
    return path.stat().st_ino if path.exists() else 0


def has_open(process: subprocess.Popen, name: str) -> bool:
    """Whether a process has a file of that name open."""
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        try:
            if descriptor.readlink().name == name:
                return True
        except FileNotFoundError:
            continue
    return False


def test_what_is_finished_is_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    first = make(tmp_path / "made")
    assert capsys.readouterr().err == ""
    assert make(tmp_path / "made") == first
    assert "digits: is in" in capsys.readouterr().err
    (tmp_path / "made/manifest.json").unlink()  # as Snakemake does where a person repeats a rule
    assert make(tmp_path / "made") not in (0, first)
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_two_at_once_make_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two studies may share their data."""
    begun, go_on, read = threading.Event(), threading.Event(), digits.read

    def slow(*arguments: object) -> object:
        begun.set()
        go_on.wait(PATIENCE)
        return read(*arguments)

    monkeypatch.setattr(digits, "read", slow)
    first = threading.Thread(target=make, args=(tmp_path / "made",))
    first.start()
    assert begun.wait(PATIENCE)
    line = "import sys; from pathlib import Path; from tests.datasets.test_making import make; "
    command = [sys.executable, "-c", line + "make(Path(sys.argv[1]))", str(tmp_path / "made")]
    second = subprocess.Popen(command, env=_here(), stderr=subprocess.PIPE, text=True)
    wait_for(lambda: second.poll() is not None or has_open(second, "lock"))
    waits = second.poll() is None
    go_on.set()
    first.join(60)
    said = second.communicate(timeout=PATIENCE)[1]
    assert second.returncode == 0
    assert said == "lockstep: another process makes made, waiting\n"
    assert waits, "the second made it too"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_source_of_whole_splits_says_that_it_has_no_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert make(tmp_path / "made", part=(1, 3)) == 0
    assert "digits: is made at one go; start once without --part" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_part_of_what_is_finished_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    raw = pictures.folder(tmp_path / "raw", 2, 1)
    entry = {"source": "image_folder", "options": {"size": 8, "shard": 2}}
    prepare.prepare("animals", entry, "id", raw, tmp_path / "made")
    capsys.readouterr()
    prepare.prepare("animals", entry, "id", raw, tmp_path / "made", part=(2, 3))
    assert "animals: is in" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "raw"]


def _here() -> dict[str, str]:
    """The environment of a stage, with the tests themselves."""
    known = environment()
    return {**known, "PYTHONPATH": os.pathsep.join([known["PYTHONPATH"], *sys.path])}
