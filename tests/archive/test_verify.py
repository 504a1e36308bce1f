"""What verifying finds: changed bytes, changed members, and files that were damaged."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lockstep import files
from lockstep.__main__ import main
from lockstep.archive import layout
from lockstep.archive.verify import Check
from lockstep.errors import UserError
from tests.archive import drill, tamper
from tests.archive.archived import Archived, checks, findings, holds
from tests.conftest import environment

RECORD = "results/small/runs/mnist_cnn/jax-jit/1x1/seed-0/summary.json"

WITHOUT = """
import importlib.abc, sys
ABSENT = {"torch", "torchvision", "jax", "flax", "optax", "grain", "h5py", "safetensors", "sklearn",
          "seaborn", "matplotlib", "tensorboardX", "rocrate", "snakemake", *sys.argv[2:]}

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
from lockstep.__main__ import main
sys.exit(main(["verify", sys.argv[1]]))
"""


def without(file: Path, *packages: str) -> subprocess.CompletedProcess:
    """Verify where no framework is installed, nor these packages."""
    command = [sys.executable, "-c", WITHOUT, str(file), *packages]
    return subprocess.run(command, env=environment(), capture_output=True, text=True)


def test_an_untouched_archive_holds_without_any_framework(archived: Archived) -> None:
    done = without(archived.file)
    assert done.returncode == 0, done.stdout + done.stderr
    *lines, last = done.stdout.splitlines()
    assert last == f"{archived.file}: holds"
    names = ["container", "content", "records", "parity", "derived", "source"]
    assert [line.split()[:2] for line in lines] == [["holds", f"{name}:"] for name in names]
    assert f"sha256 {files.sha256_file(archived.file)}" in lines[0]
    assert "4 of 4 runs agree" in lines[2]
    assert "tables and 1 verdicts follow from the records, to the bit" in lines[4]
    assert "what trained 4 runs; the committed files" in lines[5]
    sha256 = files.sha256_file(archived.file).upper()
    said = holds(archived.file, figures=True, sha256=sha256)
    assert "as published" in said and "figures were drawn again" in said


def test_without_numpy_the_first_two_checks_still_work(archived: Archived, file: Path) -> None:
    done = without(archived.file, "numpy", "pandas", "scipy")
    assert done.returncode == 2
    said = [line.split()[:2] for line in done.stdout.splitlines()]
    assert said == [["holds", "container:"], ["holds", "content:"]]
    assert "were not checked, as" in done.stderr and done.stderr.count("\n") == 1
    tamper.flip(file, file.stat().st_size // 2, 1)
    assert without(file, "numpy").returncode == 1


def test_a_checksum_that_other_programs_would_refuse_is_found(file: Path) -> None:
    with zipfile.ZipFile(file) as members:
        crc = members.getinfo("README.md").CRC.to_bytes(4, "little")
    file.write_bytes(file.read_bytes().replace(crc, bytes(4)))  # in both of its headers
    assert checks(file)[1].wrong == ["README.md: its CRC-32 is wrong"]


def test_a_folder_that_was_unzipped_is_verified_too(archived: Archived, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    with zipfile.ZipFile(archived.file) as file:
        file.extractall(folder)
    subprocess.run(["sha256sum", "-c", "--quiet", layout.HASHES], cwd=folder, check=True)
    assert findings(folder) == []
    with pytest.raises(UserError, match="--sha256 is of the archive's file"):
        checks(folder, sha256="0" * 64)
    (folder / "note").symlink_to("README.md")
    (folder / RECORD).write_text("{}")
    (folder / "source" / "config.yaml").rename(folder / "source" / "other")
    (folder / "LICENSE").mkdir()
    assert [problem.partition(" (")[0] for problem in findings(folder)] == [
        "note: is not a regular file",
        "source/config.yaml: is listed, but missing",
        "source/other: is not listed in manifest-sha256.txt",
        f"{RECORD}: was changed",
    ]


def test_a_disk_that_cannot_be_read_is_one_line(
    archived: Archived, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the headers, in the middle of the contents, and while records are compared."""
    read, calls, limit = os.pread, [], [1 << 30]

    def failing(descriptor: int, size: int, offset: int) -> bytes:
        calls.append(offset)
        if len(calls) > limit[0]:
            raise OSError(5, "Input/output error")
        return read(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", failing)
    assert main(["verify", str(archived.file)]) == 0
    total = len(calls)
    for after in (0, total // 10, total // 2, total - 1):
        limit[0] = after
        calls.clear()
        assert main(["verify", str(archived.file)]) == 2
        said = capsys.readouterr().err
        assert "cannot be read, input/output error" in said and said.count("\n") == 1


def test_archives_are_compared_like_folders(archived: Archived, file: Path, capsys) -> None:
    folder = archived.checkout.results()
    assert main(["compare", str(archived.file), str(folder)]) == 0
    assert f"{folder} against {archived.file}" in capsys.readouterr().out
    tamper.flip(file, file.stat().st_size // 2, 1)
    assert main(["compare", str(archived.file), str(file)]) == 2
    assert "does not hold: " in capsys.readouterr().err


def test_a_finding_is_no_command_to_the_terminal() -> None:
    _, line = Check(name="x", says="", wrong=["a\x1b[2Jb\u202ec\ud800"]).lines()
    assert line.strip() == r"a\x1b[2Jb\u202ec\ud800"


def test_the_drill_finds_each_changed_byte_by_name_and_what_must_be_found(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(drill, "BYTES", 12)
    monkeypatch.setattr(drill, "EACH", 1)
    assert drill.main(file) == 0
    assert "a byte anywhere: 12 of 12 found, 12 by name" in capsys.readouterr().out
