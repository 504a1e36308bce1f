"""What verifying finds: changed bytes, changed members, and records that tell another story."""

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lockstep.archive import container, layout, scan, verify
from lockstep.archive.findings import Check
from lockstep.errors import UserError
from tests.archive import tamper
from tests.archive.conftest import Archived, wrong
from tests.archive.tamper import Contents
from tests.conftest import environment, lockstep

RUNS = "results/small/runs/mnist_cnn"
RECORD = f"{RUNS}/jax-jit/1x1/seed-0/summary.json"
Found = Callable[[], list[str]]


def test_an_untouched_archive_holds_with_a_line_a_check(archived: Archived) -> None:
    done = lockstep("verify", archived.file)
    lines = done.stdout.splitlines()
    assert lines[-1] == f"{archived.file}: holds"
    assert [line.split()[0] for line in lines[:-1]] == ["holds"] * (len(lines) - 1)
    told = [line.split()[1].rstrip(":") for line in lines[:-1]]
    assert told == [
        "form", "manifest", "content", "crate", "whole", "named", "records", "data", "weights",
        "source", "described", "pages", "parity", "report", "page",
    ]  # fmt: skip
    assert "4 runs agree" in done.stdout
    assert "verdicts computed again from the records, equal to the bit" in done.stdout


WITHOUT = """
import importlib.abc, sys
ABSENT = {"torch", "torchvision", "jax", "flax", "optax", "grain", "h5py", "safetensors", "sklearn",
          "seaborn", "matplotlib", "tensorboardX", "rocrate", "snakemake"}

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(name, name=name)

sys.meta_path.insert(0, Absent())
from lockstep.__main__ import main
sys.exit(main(["verify", sys.argv[1]]))
"""


def test_it_needs_no_framework(archived: Archived) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, archived.file],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == f"{archived.file}: holds"


def test_the_published_digest_is_compared(archived: Archived) -> None:
    digest = json.loads(tamper.load(archived.file)[layout.MANIFEST])["digest"]
    assert wrong(verify.verify(archived.file, digest=digest)) == []
    found = wrong(verify.verify(archived.file, digest="0" * 64))
    assert len(found) == 1 and "not the one published" in found[0]


# Single bytes ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_any_changed_byte_is_found_and_named(file: Path, seed: int) -> None:
    chance = random.Random(seed)
    whole = file.stat().st_size
    for _ in range(6):
        place, bits = chance.randrange(whole), chance.randrange(1, 256)
        name = tamper.owner(file, place)
        tamper.flip(file, place, bits)
        found = wrong(verify.verify(file))
        assert any(name in problem for problem in found), (place, bits, name, found)
        tamper.flip(file, place, bits)


def test_any_changed_byte_of_headers_and_directory_is_found(file: Path) -> None:
    with open(file, "rb") as stream:
        members = list(scan.Reader(stream).members.values())
    first = members[0]
    places = [*range(first.start, first.data), *range(members[-1].end, file.stat().st_size, 97)]
    places += range(file.stat().st_size - 22, file.stat().st_size)
    for place in places:
        tamper.flip(file, place, 0x11)
        try:
            with open(file, "rb") as stream:
                found = scan.Reader(stream).flaws
        except container.Malformed as problem:
            found = [("", str(problem))]
        assert found, place
        tamper.flip(file, place, 0x11)


@pytest.mark.parametrize(
    ("old", "new"), [(b"results/", b"/esults/"), (b"seed-0/summary", b"seed-1/summary")]
)
def test_a_changed_byte_that_makes_a_name_hostile_is_a_finding(
    file: Path, findings: Found, old: bytes, new: bytes
) -> None:
    content = bytearray(file.read_bytes())
    with open(file, "rb") as stream:
        directory = list(scan.Reader(stream).members.values())[-1].end
    place = content.index(old, directory)
    content[place : place + len(old)] = new
    file.write_bytes(content)
    assert any("(in the directory)" in problem for problem in findings()), findings()


def test_a_finding_is_no_command_to_the_terminal() -> None:
    (line,) = Check(name="x", says="", wrong=["a\x1b[2Jb\u202ec\ud800"]).lines()
    assert line == r"FAILS  x: a\x1b[2Jb\u202ec\ud800"


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
        (drop, f"{RECORD}: is listed, but not there"),
        (add, "results/small/extra.bin: is there, but not listed"),
        (rename, "source/config.yaml: is listed, but not there"),
        (swap, "seed-0/steps.npz: was changed (sha256 differs)"),
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
        (drop, "is missing, which the manifest does not say"),
        (add, "results/small/extra.bin: of no kind that an archive holds"),
        (rename, "source/: its hash is not that of what is below it"),
        (swap, "its batches are not those of the summary"),
    ],
)
def test_so_are_they_with_a_manifest_that_fits(
    file: Path, findings: Found, change: Callable[[Contents], None], names: str
) -> None:
    tamper.forge(file, change, crate=change is swap or change is drop or change is add)
    assert any(names in problem for problem in findings()), findings()


def test_bytes_between_members_are_found(file: Path) -> None:
    content = file.read_bytes()
    with open(file, "rb") as stream:
        member = list(scan.Reader(stream).members.values())[5]
    for place in (0, member.start, member.end, len(content)):
        file.write_bytes(content[:place] + b"hidden" + content[place:])
        with pytest.raises(UserError, match="not a whole archive of Lockstep"):
            verify.verify(file)
