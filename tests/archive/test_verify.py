"""What verifying finds: changed bytes, changed members, and records that tell another story."""

import hashlib
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
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
        "form", "manifest", "content", "crate", "whole", "records", "data", "source", "pages",
        "parity", "report",
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


# Records with hashes that fit -----------------------------------------------------------------


def record(change: Callable[[dict], None]) -> Callable[[Contents], None]:
    return lambda contents: tamper.edit_json(contents, RECORD, change)


def faster(summary: dict) -> None:
    for name in ("median", "q1", "q3", "p95"):
        summary["steady"]["step_seconds"][name] *= 0.9


def better(summary: dict) -> None:
    summary["metrics"]["test_accuracy"] += 0.01


def other_seed(summary: dict) -> None:
    summary["contract"]["determined_by"]["seed"] = 7


def other_batches(summary: dict) -> None:
    summary["batches"] = "0" * 64


def other_data(summary: dict) -> None:
    summary["dataset"]["licence"] = "CC0"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (faster, "report/report.json: "),
        (better, "report/report.json: "),
        (other_seed, "its identity is not the hash of what it says that determined it"),
        (other_batches, "its batches are not those of the summary"),
        (other_data, "its dataset's licence is not what data/datasets says"),
    ],
)
def test_a_forged_record_is_found_although_all_its_hashes_fit(
    file: Path, findings: Found, change: Callable[[dict], None], names: str
) -> None:
    tamper.forge(file, record(change))
    found = findings()
    assert any(names in problem for problem in found), found


def test_a_forged_report_is_found(file: Path, findings: Found) -> None:
    def change(contents: Contents) -> None:
        name = "results/small/report/tables/comparisons.csv"
        contents[name] = contents[name].replace(b"0.", b"1.", 1)

    tamper.forge(file, change)
    assert any("report/tables/comparisons.csv" in problem for problem in findings())


def test_a_forged_verdict_on_parity_is_found(file: Path, findings: Found) -> None:
    name = "results/small/parity/mnist_cnn/verdict.json"

    def change(verdict: dict) -> None:
        verdict["comparisons"]["jax-jit"]["rungs"][1]["value"] = 1e-16

    tamper.forge(file, lambda contents: tamper.edit_json(contents, name, change))
    found = findings()
    assert any("the records give" in problem and "verdict.json" in problem for problem in found)
    assert any("passed.json has the hash of" in problem for problem in found)


def test_another_config_to_run_again_is_found(file: Path, findings: Found) -> None:
    def change(config: dict) -> None:
        config["workloads"]["mnist_cnn"]["epochs"] = 2

    tamper.forge(file, lambda contents: tamper.edit_json(contents, layout.STUDY, change))
    assert any("is not the config of the study as it was run" in p for p in findings())


def test_code_that_did_not_train_the_runs_is_found(file: Path, findings: Found) -> None:
    def change(contents: Contents) -> None:
        name = "source/workflow/lockstep/training/loop.py"
        contents[name] = contents[name].replace(b"STOP = ", b"STOP = 0 + ", 1)

    tamper.forge(file, change)
    assert any("is not the code that trained" in problem for problem in findings())


def with_steps(change: Callable[[dict], None]) -> Callable[[Contents], None]:
    """Change a run's arrays."""

    def changed(contents: Contents) -> None:
        name = f"{RUNS}/jax-jit/1x1/seed-0/steps.npz"
        with np.load(io.BytesIO(contents[name])) as stored:
            arrays = dict(stored)
        change(arrays)
        packed = io.BytesIO()
        np.savez(packed, **arrays)
        contents[name] = packed.getvalue()

    return changed


def half_the_loss(arrays: dict) -> None:
    arrays["loss"] /= 2


def cell(table: str, column: str, factor: float) -> Callable[[Contents], None]:
    """Change a number in the last row of a run's table."""
    name = f"{RUNS}/jax-jit/1x1/seed-0/{table}"
    return lambda contents: tamper.edit_table(contents, name, column, factor)


def fewer_words(contents: Contents) -> None:
    contents["README.md"] = b"Nothing to see here.\n"


def another_author(contents: Contents) -> None:
    for name in ("metadata.json", "CITATION.cff"):
        contents[name] = contents[name].replace(b"Ada Example", b"Eve Example")


@pytest.mark.parametrize(
    ("change", "names"),
    [
        (with_steps(half_the_loss), "seed-0/windows.csv: loss in row 0"),
        (cell("windows.csv", "loss", 0.5), "seed-0/windows.csv: loss in row"),
        (cell("windows.csv", "seconds", 0.01), "seed-0/summary.json: steady.step_seconds."),
        (cell("windows.csv", "steps", 2), "windows.csv: its windows are not the steps of"),
        (cell("epochs.csv", "train_loss", 0.9), "seed-0/epochs.csv: train_loss in row 0"),
        (lambda c: c.update({f"{RUNS}/jax-jit/1x1/seed-0/windows.csv": b"\xff,\n"}), "windows.csv"),
        (fewer_words, "README.md: is not what config and records make it"),
        (another_author, "CITATION.cff: is not what config and records make it"),
        (lambda c: c.pop("metadata.json") and None, "metadata.json: is missing, which archiving"),
    ],
)
def test_what_follows_from_the_records_is_made_again(
    file: Path, findings: Found, change: Callable[[Contents], None], names: str
) -> None:
    tamper.forge(file, change)
    found = findings()
    assert any(names in problem for problem in found), found


def other_words(contents: Contents) -> None:
    """Swap words of the page, and have complete.json fit."""
    page, told = "results/small/report/index.html", "results/small/report/complete.json"
    contents[page] = contents[page].replace(b"PASS", b"FAIL")
    sums = {"index.html": hashlib.sha256(contents[page]).hexdigest()}
    tamper.edit_json(contents, told, lambda complete: complete.update(sums))


def other_source(contents: Contents) -> None:
    contents["source/other"] = contents.pop("source/config.yaml")
    contents["source/containers/install.sh"] += b"# something else\n"


@pytest.mark.parametrize("change", [other_words, other_source])
def test_what_no_record_tells_is_held_by_the_digest_alone(
    file: Path, change: Callable[[Contents], None]
) -> None:
    digest = json.loads(tamper.load(file)[layout.MANIFEST])["digest"]
    tamper.forge(file, change)
    assert wrong(verify.verify(file)) == []
    assert any("not the one published" in w for w in wrong(verify.verify(file, digest=digest)))
