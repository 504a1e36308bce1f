"""What verifying finds: changed bytes, changed members, and files that were damaged."""

import os
import random
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lockstep import files
from lockstep.__main__ import main
from lockstep.archive import archive_reader, layout, verify
from lockstep.archive.verify import Check
from lockstep.errors import UserError
from tests.archive import drill, tamper
from tests.archive.conftest import Archived, wrong
from tests.archive.tamper import Contents
from tests.conftest import environment, lockstep

TOP = "results/small/"
RUNS = f"{TOP}runs/mnist_cnn"
RECORD = f"{RUNS}/jax-jit/1x1/seed-0/summary.json"
Found = Callable[[], list[str]]
CHECKS = ["container", "content", "records", "parity", "derived", "source"]


def test_an_untouched_archive_holds_with_six_lines(archived: Archived) -> None:
    done = lockstep("verify", archived.file)
    lines = done.stdout.splitlines()
    assert lines[-1] == f"{archived.file}: holds"
    assert [line.split()[0] for line in lines[:-1]] == ["holds"] * 6
    assert [line.split()[1].rstrip(":") for line in lines[:-1]] == CHECKS
    assert f"sha256 {files.sha256_file(archived.file)}" in lines[0]
    assert "4 of 4 runs agree" in done.stdout
    assert "tables and 1 verdicts follow from the records, to the bit" in done.stdout


def test_a_folder_that_was_unzipped_is_verified_too(archived: Archived, tmp_path: Path) -> None:
    with zipfile.ZipFile(archived.file) as file:
        file.extractall(tmp_path / "x")
    subprocess.run(["sha256sum", "-c", "--quiet", layout.HASHES], cwd=tmp_path / "x", check=True)
    assert wrong(verify.verify(tmp_path / "x")) == []
    with pytest.raises(UserError, match="--sha256 is of the archive's file"):
        verify.verify(tmp_path / "x", sha256="0" * 64)
    (tmp_path / "x" / "note").symlink_to("README.md")
    (tmp_path / "x" / RECORD).write_text("{}")
    (tmp_path / "x" / "source" / "extra.py").touch()
    (tmp_path / "x" / "LICENSE").mkdir()
    found = wrong(verify.verify(tmp_path / "x"))
    assert [w.split(": ")[0] for w in found] == ["note", "source/extra.py", RECORD]


def test_figures_are_drawn_again_where_asked(archived: Archived) -> None:
    checks = verify.verify(archived.file, figures=True)
    assert wrong(checks) == [] and any("figures were drawn again" in c.says for c in checks)


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
    command = [sys.executable, "-c", WITHOUT, str(file), *packages]
    return subprocess.run(command, env=environment(), capture_output=True, text=True)


def test_it_needs_no_framework(archived: Archived) -> None:
    done = without(archived.file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{archived.file}: holds"


def test_without_numpy_the_first_two_checks_still_work(archived: Archived, file: Path) -> None:
    done = without(archived.file, "numpy", "pandas", "scipy")
    assert done.returncode == 2
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["holds", "container:"], ["holds", "content:"],
    ]  # fmt: skip
    assert "were not checked, as" in done.stderr and done.stderr.count("\n") == 1
    tamper.flip(file, file.stat().st_size // 2, 1)
    assert without(file, "numpy").returncode == 1


def test_the_published_sha256_is_compared(archived: Archived) -> None:
    sha256 = files.sha256_file(archived.file)
    with archive_reader.opened(archived.file) as archive:
        assert verify.container(archive, sha256.upper()).wrong == []
        found = verify.container(archive, "0" * 64).wrong
    assert found == [f"small.crate.zip: has sha256 {sha256}, not the one published"]


def test_a_disk_that_cannot_be_read_is_one_line(
    archived: Archived, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the headers, in the middle of the contents, and while records are compared."""
    read, calls, limit = os.pread, [], [0]

    def failing(descriptor: int, size: int, offset: int) -> bytes:
        calls.append(offset)
        if len(calls) > limit[0]:
            raise OSError(5, "Input/output error")
        return read(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", failing)
    limit[0] = 1 << 30
    assert main(["verify", str(archived.file)]) == 0
    total = len(calls)
    for share in (0, 0.1, 0.5, 0.7, 0.9):
        limit[0] = int(share * total)
        calls.clear()
        assert main(["verify", str(archived.file)]) == 2
        said = capsys.readouterr().err
        assert "cannot be read, input/output error" in said and said.count("\n") == 1


# Single bytes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_any_changed_byte_is_found_and_named(file: Path, seed: int) -> None:
    chance = random.Random(seed)
    whole = file.stat().st_size
    for _ in range(6):
        place, bits = chance.randrange(whole), chance.randrange(1, 256)
        name = tamper.owner(file, place)
        tamper.flip(file, place, bits)
        try:
            found = wrong(verify.verify(file))
        except UserError as error:  # what lists the other files is not readable any more
            found = [str(error)]
        assert any(name in problem for problem in found), (place, bits, name, found)
        tamper.flip(file, place, bits)


def test_a_finding_is_no_command_to_the_terminal() -> None:
    _, line = Check(name="x", says="", wrong=["a\x1b[2Jb\u202ec\ud800"]).lines()
    assert line.strip() == r"a\x1b[2Jb\u202ec\ud800"


# Members --------------------------------------------------------------------------------------


def drop(contents: Contents) -> None:
    del contents[RECORD]


def add(contents: Contents) -> None:
    contents["results/small/extra.bin"] = b"something"


def rename(contents: Contents) -> None:
    contents["source/other"] = contents.pop("source/config.yaml")


def swap(contents: Contents) -> None:
    a, b = (f"{RUNS}/torch-eager/1x1/seed-{n}/steps.npz" for n in (0, 1))
    contents[a], contents[b] = contents[b], contents[a]


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (drop, f"{RECORD}: is listed, but missing"),
        (add, "results/small/extra.bin: is not listed in manifest-sha256.txt"),
        (rename, "source/config.yaml: is listed, but missing"),
        (swap, "seed-0/steps.npz: was changed (its sha256 is not"),
    ],
)
def test_members_that_are_not_the_listed_ones_are_named(
    file: Path, findings: Found, change: Callable[[Contents], None], names: str
) -> None:
    contents = tamper.load(file)
    change(contents)
    tamper.store(file, contents)
    assert any(names in problem for problem in findings())


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (drop, f"{RECORD.removeprefix(TOP)}: is missing, which archive.json does not say"),
        (add, "results/small/extra.bin: neither the config nor a record asks for it"),
        (swap, "seed-0/steps.npz: its batches are not those of summary.json"),
    ],
)
def test_so_are_they_with_hashes_that_fit(
    file: Path, findings: Found, change: Callable[[Contents], None], names: str
) -> None:
    tamper.forge(file, change)
    assert any(names in problem for problem in findings()), findings()


def test_the_drill_runs_to_its_end(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill, "BYTES", 1)
    monkeypatch.setattr(drill, "EACH", 1)
    assert drill.main(file) == 0
