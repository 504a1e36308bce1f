"""A study run again from its archive alone, in an empty folder."""

import io
import json
import os
import shutil
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
from tests.archive.conftest import Archived, git
from tests.conftest import PATIENCE, ROOT, small_disk
from tests.end_to_end.checkout import losses

RUN = "mnist_cnn/jax-jit/1x1/seed-1"
Typed = Callable[..., tuple[int, str, str]]


def reproduce(archived: Archived, *arguments: object) -> subprocess.CompletedProcess:
    """Start it as a person does, with an empty home."""
    environment = {**archived.checkout.environment, "PYTHONPATH": str(ROOT / "workflow")}
    return subprocess.run(
        [sys.executable, "-m", "lockstep", "reproduce", *map(str, arguments)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_a_run_has_the_same_bits_in_a_fresh_folder(archived: Archived, tmp_path: Path) -> None:
    into = tmp_path / "again"
    done = reproduce(archived, archived.file, "--into", into, "--yes", "--only", RUN)
    assert done.returncode == 0, done.stdout + done.stderr
    old, new = archived.checkout.results(), into / "lockstep" / "results" / "small"
    assert np.array_equal(losses(old, RUN), losses(new, RUN))
    told = json.loads((into / "reproduction.json").read_text())
    assert told["conclusion"] == YES
    assert [(o["what"], o["measure"], o["outcome"]) for o in told["outcomes"]] == [(RUN, BITS, YES)]
    assert "have the same bits" in done.stdout
    assert f"record: {into / 'reproduction.json'}" in done.stdout


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type a command about an archive that is known to hold; returns its status and its output."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with monkeypatch.context() as patch:
            patch.setattr(verify, "verified", lambda archive, **_: iter(()))
            patch.setattr(sys, "stdin", io.StringIO())
            status = main(["reproduce", *map(str, arguments)])
        return status, *capsys.readouterr()

    return run


def test_it_says_what_it_would_run_and_writes_nothing(
    archived: Archived, typed: Typed, tmp_path: Path
) -> None:
    into = tmp_path / "again"
    status, out, _ = typed(archived.file, "--into", into, "--dry-run")
    assert status == 0
    assert "study small: 4 of its runs" in out
    assert "-m snakemake report --profile profiles/local" in out
    assert "obtained by the workflow" in out
    assert "it proves nothing unless the archive is the published one" in out
    assert not into.exists()


def test_nothing_is_run_unless_a_person_says_yes(
    archived: Archived, typed: Typed, tmp_path: Path
) -> None:
    status, _, error = typed(archived.file, "--into", tmp_path / "again")
    assert status == 2
    assert "add --yes" in error and error.count("\n") == 1
    assert not (tmp_path / "again").exists()


def test_an_archive_that_does_not_hold_is_not_run(
    archived: Archived, file: Path, tmp_path: Path
) -> None:
    tamper.flip(file, file.stat().st_size // 2, 1)
    done = reproduce(archived, file, "--into", tmp_path / "again", "--yes")
    assert done.returncode == 1
    assert "does not hold; nothing was run" in done.stdout
    assert not (tmp_path / "again").exists()


def test_another_archive_than_the_published_one_is_not_run(
    archived: Archived, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    into = tmp_path / "again"
    status = repetition.main(archived.file, into, profile="x", sha256="0" * 64, yes=True)
    assert status == 1 and not into.exists()
    said = capsys.readouterr().out
    assert "not the one published" in said and "does not hold; nothing was run" in said


def test_the_code_is_compared_with_a_checkout(
    archived: Archived, file: Path, typed: Typed, tmp_path: Path
) -> None:
    options = ("--into", tmp_path / "again", "--dry-run", "--source", archived.checkout.root)
    status, out, _ = typed(file, *options)
    assert status == 0 and "proves nothing" not in out

    def other_code(contents: tamper.Contents) -> None:
        contents["source/workflow/lockstep/report/extra.py"] = b"import os\n"
        contents["source/Snakefile"] += b"# more\n"
        contents["source/config.yaml"] += b"# more\n"

    tamper.forge(file, other_code)
    status, out, _ = typed(file, *options)
    assert status == 1 and "its code is not that of" in out
    assert [line.partition(": ")[2] for line in out.splitlines()[:3]] == [
        "Snakefile: differs",
        "config.yaml: differs",
        "workflow/lockstep/report/extra.py: is only in the archive",
    ]
    with pytest.raises(UserError, match="--source nowhere: is not a folder"):
        repetition.main(archived.file, tmp_path / "x", profile="x", source=Path("nowhere"))


def test_other_packages_are_named_before_anything_runs(
    archived: Archived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    here = {**machine.versions(PACKAGES), "numpy": "1.0"}
    monkeypatch.setattr(machine, "versions", lambda packages: here)
    repetition.main(archived.file, tmp_path / "x", profile="profiles/local", dry_run=True)
    told = json.loads(tamper.load(archived.file)[f"results/small/runs/{RUN}/summary.json"])
    recorded = told["contract"]["determined_by"]["environment"]["numpy"]
    assert f"differs here: numpy 1.0, recorded {recorded}" in capsys.readouterr().out


def test_the_records_are_not_there_while_the_code_runs(
    archived: Archived, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def run(command: list[str], cwd: Path, env: dict) -> subprocess.CompletedProcess:
        seen.extend(cwd.parent.rglob("summary.json"))
        assert cwd.is_dir() and "PYTHONPATH" not in env
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(subprocess, "run", run)
    into = tmp_path / "again"
    monkeypatch.setattr(reproduction_plan, "other_packages", lambda *_: [])
    assert repetition.main(archived.file, into, profile="profiles/local", yes=True) == 2
    assert seen == [] and len([*(into / "archived").rglob("summary.json")]) == 4


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--into", "profiles", "profiles: must be an empty folder"),
        ("--into", "/proc/x", "/proc/x: cannot be written, no such file or directory; name"),
        ("--into", "x" * 300, "cannot be read, file name too long"),
        ("--profile", "~nosuchuser/p", "--profile ~nosuchuser/p: there is no such user"),
        ("--profile", "x" * 300, "cannot be read, file name too long"),
        ("--raw", f"digits={'x' * 300}", "cannot be read, file name too long"),
    ],
)
def test_places_that_cannot_be_are_one_line(
    archived: Archived, typed: Typed, tmp_path: Path, option: str, value: str, says: str
) -> None:
    options = {"--into": tmp_path / "again", option: value}
    more = [word for item in options.items() for word in item]
    status, _, error = typed(archived.file, *more, "--yes")
    assert status == 2
    assert says in error and error.count("\n") == 1
    assert not (tmp_path / "again").exists()


def test_a_disk_that_nothing_can_be_written_to_is_one_line(
    archived: Archived, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for into in (disk, disk / "again"):
            with pytest.raises(UserError, match="cannot be written, read-only file system"):
                set_up(archived.file, tmp_path, folder=into)


def set_up(file: Path, tmp_path: Path, **options: object) -> Path:
    """Put an archive's parts to where they are run; returns the checkout."""
    options = {"folder": tmp_path / "x", "profile": "profiles/local", **options}
    with archive_reader.opened(file) as archive:
        chosen = reproduction_plan.plan(archive, **options)
        repetition.set_up(archive, chosen)
    return chosen.checkout


def test_the_source_is_set_up_as_it_was(archived: Archived, tmp_path: Path) -> None:
    checkout = set_up(archived.file, tmp_path)
    original = archived.checkout.root
    assert (checkout / "slurm").readlink() == Path("profiles/slurm")
    for name in set(git(original, "ls-files").split()) - {"slurm"}:
        assert (checkout / name).read_bytes() == (original / name).read_bytes()
        mode = (checkout / name).stat().st_mode & 0o111
        assert bool(mode) == bool((original / name).stat().st_mode & 0o111)
    assert not (checkout / "data").exists()  # a manifest alone is no dataset


def test_archived_data_are_used(everything: Path, tmp_path: Path) -> None:
    checkout = set_up(everything, tmp_path)
    names = {path.name for path in (checkout / "data" / "datasets").glob("*/*")}
    assert names == {"manifest.json", "train-00000.h5", "test-00000.h5"}


def test_what_cannot_be_set_up_leaves_nothing_behind(file: Path, tmp_path: Path) -> None:
    tamper.forge(file, lambda contents: contents.update({"source/slurm": b"../../outside"}))
    with pytest.raises(UserError, match="a link out of its folder"):
        set_up(file, tmp_path)
    assert not (tmp_path / "x").exists()


def test_a_source_that_leads_its_data_elsewhere_is_not_set_up(
    everything: Path, tmp_path: Path
) -> None:
    """Each link leads to a place in its folder by its letters, one after the other out of it."""
    links = {"source/p/q/d": b"../..", "source/data": b"p/q/d/../../victim"}
    (tmp_path / "victim" / "datasets").mkdir(parents=True)
    file = Path(shutil.copy(everything, tmp_path / "x.zip"))

    def change(contents: tamper.Contents) -> None:
        contents.update(links)
        tamper.edit_json(contents, layout.ABOUT, lambda told: told["links"].extend(links))

    tamper.forge(file, change)
    with pytest.raises(UserError, match="a link out of its folder"):
        set_up(file, tmp_path)
    assert not list((tmp_path / "victim" / "datasets").iterdir())
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_run_is_no_verdict(archived: Archived, tmp_path: Path) -> None:
    into = tmp_path / "again"
    done = reproduce(
        archived, archived.file, "--into", into, "--yes", "--only", RUN, "--profile", "no/where"
    )
    assert done.returncode == 2
    assert "study small: could not be run to its end" in done.stdout
    assert "the workflow ended with status 1" in done.stdout
    assert (
        "NOT REPRODUCED" not in json.loads((into / "reproduction.json").read_text())["conclusion"]
    )


def test_no_answer_is_no(monkeypatch: pytest.MonkeyPatch) -> None:
    person, terminal = os.openpty()
    os.write(person, b"\x04")  # Ctrl-D
    with open(terminal) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(UserError, match="nothing was run"):
            repetition._ask(False)
    os.close(person)


def test_a_profile_is_the_archives_own_or_one_that_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("profiles/local", "mine"):
        (tmp_path / name).mkdir(parents=True)
    archived = ["source/profiles/local/config.yaml", "source/slurm"]
    profile = reproduction_plan._profile
    assert profile("profiles/local", archived) == "profiles/local"
    assert profile("slurm", archived) == "slurm"
    assert profile("mine", archived) == str(tmp_path / "mine")
    assert profile("elsewhere", archived) == "elsewhere"  # Snakemake's own places


# What is run ----------------------------------------------------------------------------------


def planned(archived: Archived, tmp_path: Path, **options: object) -> Plan:
    options = {"folder": tmp_path / "x", "profile": "profiles/local", **options}
    with archive_reader.opened(archived.file) as archive:
        return reproduction_plan.plan(archive, **options)


def test_a_subset_keeps_the_reference_of_parity(archived: Archived, tmp_path: Path) -> None:
    chosen = planned(archived, tmp_path, only=["mnist_cnn/jax-jit/1x1/seed-1"])
    assert chosen.runs == [RUN]
    assert set(chosen.config["variants"]) == {"torch-eager", "jax-jit"}
    assert chosen.config["seeds"] == [1]
    assert planned(archived, tmp_path, only=["mnist_cnn"]).runs == [
        run.name for run in archived.study.runs
    ]


def test_the_chosen_runs_keep_their_identities(archived: Archived, tmp_path: Path) -> None:
    chosen = Study(planned(archived, tmp_path, only=[RUN]).config)
    run = next(run for run in chosen.runs if run.name == RUN)
    assert chosen.run_config(run) == archived.study.run_config(run)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"only": ["mnist_cnn/jax-git"]}, "no run of the study"),
        ({"raw": ["digits"]}, "must be NAME=FOLDER"),
        ({"raw": ["digit=/tmp"]}, "did you mean 'digits'"),
        ({"raw": ["digits=/nowhere/at/all"]}, "is not a folder"),
        ({"start": ["mnist_cnn=/nowhere/at/all"]}, "is not a file"),
    ],
)
def test_mistakes_are_one_line(
    archived: Archived, tmp_path: Path, options: dict, says: str
) -> None:
    with pytest.raises(UserError, match=says):
        planned(archived, tmp_path, **options)


def test_weights_that_a_workload_starts_from_are_asked_for(file: Path, tmp_path: Path) -> None:
    """No archive holds them; only the name of their file is in it."""

    def begun(told: dict) -> None:
        told["workloads"]["mnist_cnn"]["start"] = "/data/ada/begun.safetensors"

    held = json.loads(tamper.load(file)[layout.STUDY])
    begun(held)
    assert layout.reproducible(held)["workloads"]["mnist_cnn"]["start"] == "begun.safetensors"
    tamper.forge(file, lambda contents: tamper.edit_json(contents, layout.STUDY, begun))
    options = {"folder": tmp_path / "x", "profile": "profiles/local"}
    with archive_reader.opened(file) as archive:
        with pytest.raises(UserError, match=r"begun\.safetensors.*: --start mnist_cnn=FILE"):
            reproduction_plan.plan(archive, **options)
        chosen = reproduction_plan.plan(archive, **options, start=[f"mnist_cnn={file}"])
        lines = reproduction_plan.lines(chosen, archive, trusted=True)
    assert chosen.config["workloads"]["mnist_cnn"]["start"] == str(file)
    assert f"mnist_cnn starts from: {file}" in lines
