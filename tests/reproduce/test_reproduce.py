"""A study run again from its archive alone, in an empty folder."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lockstep import machine
from lockstep.__main__ import main
from lockstep.archive import archive_reader, layout, verify
from lockstep.errors import UserError
from lockstep.reproduce import repetition, reproduction_plan
from lockstep.reproduce.reproduction_outcome import BITS, YES
from lockstep.reproduce.reproduction_plan import Plan
from lockstep.study import PACKAGES, Study
from tests.archive import tamper
from tests.archive.archived import Archived, git
from tests.conftest import PATIENCE, ROOT, small_disk
from tests.end_to_end.checkout import losses

RUN = "mnist_cnn/jax-jit/1x1/seed-1"
Typed = Callable[..., tuple[int, str, str]]


def test_a_run_has_the_same_bits_in_a_fresh_folder(archived: Archived, tmp_path: Path) -> None:
    """Started as a person does, with an empty home."""
    into = tmp_path / "again"
    done = subprocess.run(
        [sys.executable, "-m", "lockstep", "reproduce", str(archived.file), "--into", str(into),
         "--yes", "--only", RUN],
        env={**archived.checkout.environment, "PYTHONPATH": str(ROOT / "workflow")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    old, new = archived.checkout.results(), into / "lockstep" / "results" / "small"
    assert np.array_equal(losses(old, RUN), losses(new, RUN))
    told = json.loads((into / "reproduction.json").read_text())
    assert told["conclusion"] == YES
    assert [(o["what"], o["measure"], o["outcome"]) for o in told["outcomes"]] == [(RUN, BITS, YES)]
    assert "have the same bits" in done.stdout
    assert f"record: {into / 'reproduction.json'}" in done.stdout


# Before anything runs -------------------------------------------------------------------------


@pytest.fixture
def typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Typed:
    """Type a command; returns its status and its output. Nothing is left behind."""

    def run(file: Path, options: str, holds: bool = True) -> tuple[int, str, str]:
        into = "" if "--into" in options else f"--into {tmp_path / 'again'}"
        with monkeypatch.context() as patch:
            if holds:  # which is known
                patch.setattr(verify, "verified", lambda archive, **_: iter(()))
            patch.setattr(sys, "stdin", io.StringIO())
            status = main(["reproduce", str(file), *into.split(), *options.split()])
        assert not (tmp_path / "again").exists()
        return status, *capsys.readouterr()

    return run


def test_it_says_what_it_would_run_and_with_which_other_packages(
    archived: Archived, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = machine.versions(PACKAGES)
    monkeypatch.setattr(machine, "versions", lambda packages: {**recorded, "numpy": "1.0"})
    status, out, _ = typed(archived.file, "--dry-run")
    assert status == 0
    for says in (
        "study small: 4 of its runs",
        "-m snakemake report --profile profiles/local",
        "obtained by the workflow",
        f"differs here: numpy 1.0, recorded {recorded['numpy']}",
        "it proves nothing unless the archive is the published one",
    ):
        assert says in out


def test_what_does_not_hold_is_not_run(archived: Archived, typed: Typed) -> None:
    status, out, _ = typed(archived.file, f"--yes --sha256 {'0' * 64}", holds=False)
    assert status == 1 and "does not hold; nothing was run" in out
    assert "not the one published" in out


def test_the_code_is_compared_with_a_checkout(archived: Archived, file: Path, typed: Typed) -> None:
    options = f"--dry-run --source {archived.checkout.root}"
    status, out, _ = typed(file, options)
    assert status == 0 and "proves nothing" not in out

    def other_code(contents: tamper.Contents) -> None:
        contents["source/workflow/lockstep/report/extra.py"] = b"import os\n"
        contents["source/Snakefile"] += b"# more\n"

    tamper.forge(file, other_code)
    status, out, _ = typed(file, options)
    assert status == 1 and "its code is not that of" in out
    assert [line.partition(": ")[2] for line in out.splitlines()[:2]] == [
        "Snakefile: differs",
        "workflow/lockstep/report/extra.py: is only in the archive",
    ]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("", "this runs the code of the archive; add --yes"),
        ("--yes --into profiles", "profiles: must be an empty folder"),
        ("--yes --into /proc/x", "/proc/x: cannot be written, no such file or directory; name"),
        (f"--yes --into {'x' * 300}", "cannot be read, file name too long"),
        ("--source nowhere", "--source nowhere: is not a folder"),
        ("--only mnist_cnn/jax-git", "no run of the study"),
        ("--raw digits", "must be NAME=FOLDER"),
        ("--raw digit=/tmp", "did you mean 'digits'"),
        ("--raw digits=/nowhere/at/all", "is not a folder"),
        ("--start mnist_cnn=/nowhere/at/all", "is not a file"),
    ],
)
def test_what_cannot_be_is_one_line(
    archived: Archived, typed: Typed, options: str, says: str
) -> None:
    status, _, error = typed(archived.file, options)
    assert status == 2
    assert says in error and error.count("\n") == 1


def test_no_answer_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    person, terminal = os.openpty()
    os.write(person, b"\x04")  # Ctrl-D
    with open(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(UserError, match="nothing was run"):
            repetition._ask(False)
    os.close(person)


# While it runs --------------------------------------------------------------------------------


def test_while_the_code_runs_no_record_is_there_and_an_error_is_no_verdict(
    archived: Archived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    seen = []

    def run(command: list[str], cwd: Path, env: dict) -> subprocess.CompletedProcess:
        seen.extend(cwd.parent.rglob("summary.json"))
        assert cwd.is_dir() and "PYTHONPATH" not in env
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(verify, "verified", lambda archive, **_: iter(()))
    monkeypatch.setattr(reproduction_plan, "other_packages", lambda *_: [])
    into = tmp_path / "again"
    assert repetition.main(archived.file, folder=into, profile="profiles/local", yes=True) == 2
    assert seen == [] and len([*(into / "archived").rglob("summary.json")]) == 4
    said = capsys.readouterr().out
    assert "the workflow ended with status 1" in said
    assert "study small: could not be run to its end" in said
    told = json.loads((into / "reproduction.json").read_text())
    assert told["conclusion"] == repetition.FAILED


# What is set up -------------------------------------------------------------------------------


def planned(file: Path, folder: Path, **options: object) -> tuple[Plan, list[str]]:
    """What is to be run, and what is said of it."""
    with archive_reader.opened(file) as archive:
        chosen = reproduction_plan.plan(archive, folder=folder, profile="profiles/local", **options)
        return chosen, reproduction_plan.lines(chosen, archive, trusted=True)


def set_up(file: Path, folder: Path) -> Path:
    """Put an archive's parts to where they are run; returns the checkout."""
    chosen, _ = planned(file, folder)
    with archive_reader.opened(file) as archive:
        repetition.set_up(archive, chosen)
    return chosen.checkout


def test_the_source_is_set_up_as_it_was(archived: Archived, tmp_path: Path) -> None:
    checkout, original = set_up(archived.file, tmp_path / "x"), archived.checkout.root
    assert (checkout / "slurm").readlink() == Path("profiles/slurm")
    files = {*git(original, "ls-files").split()} - {"slurm"}
    for name in files:
        assert (checkout / name).read_bytes() == (original / name).read_bytes()
        modes = [(root / name).stat().st_mode & 0o111 for root in (checkout, original)]
        assert bool(modes[0]) == bool(modes[1])
    # And nothing more: a manifest alone is no dataset.
    assert sum(path.is_file() for path in checkout.rglob("*")) == len(files) + 1


def test_a_disk_that_is_read_only_is_one_line(archived: Archived, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for into in (disk, disk / "again"):
            with pytest.raises(UserError, match="cannot be written, read-only file system"):
                set_up(archived.file, into)


def test_a_profile_is_the_archives_own_or_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("profiles/local", "mine"):
        (tmp_path / name).mkdir(parents=True)
    archived = ["source/profiles/local/config.yaml", "source/slurm"]
    found = {"profiles/local": "profiles/local", "slurm": "slurm", "mine": str(tmp_path / "mine")}
    found["elsewhere"] = "elsewhere"  # Snakemake's own places
    for name, place in found.items():
        assert reproduction_plan._profile(name, archived) == place


def test_a_subset_keeps_the_reference_and_its_identities(
    archived: Archived, tmp_path: Path
) -> None:
    chosen, _ = planned(archived.file, tmp_path, only=[RUN])
    assert chosen.runs == [RUN]
    assert {*chosen.config["variants"]} == {"torch-eager", "jax-jit"}
    assert chosen.config["seeds"] == [1]
    (run,) = (run for run in Study(chosen.config).runs if run.name == RUN)
    assert Study(chosen.config).run_config(run) == archived.study.run_config(run)
    everything, _ = planned(archived.file, tmp_path, only=["mnist_cnn"])
    assert everything.runs == [run.name for run in archived.study.runs]


def test_weights_that_a_workload_starts_from_are_asked_for(file: Path, tmp_path: Path) -> None:
    """No archive holds them; only the name of their file is in it."""

    def begun(told: dict) -> None:
        told["workloads"]["mnist_cnn"]["start"] = "/data/ada/begun.safetensors"

    tamper.forge(file, lambda contents: tamper.edit_json(contents, layout.STUDY, begun))
    with pytest.raises(UserError, match=r"in begun\.safetensors, .*: --start mnist_cnn=FILE"):
        planned(file, tmp_path / "x")
    chosen, lines = planned(file, tmp_path / "x", start=[f"mnist_cnn={file}"])
    assert chosen.config["workloads"]["mnist_cnn"]["start"] == str(file)
    assert f"mnist_cnn starts from: {file}" in lines
