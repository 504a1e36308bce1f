"""What an archive holds, and what it never does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep import files
from lockstep.records import record_schema
from tests.archive import tamper
from tests.archive.archived import SECRET, Archived, ask, findings, git, holds, make, refused
from tests.end_to_end.checkout import Checkout

TOP = "results/small/"
BESIDES = (
    f"{TOP}report/tables/comparisons.csv",
    f"{TOP}logs/train/mnist_cnn/jax-jit/1x1/seed-1.json",
)
"""Of what is archived although no study is incomplete without."""


def test_the_workflow_makes_it_if_asked_and_nothing_is_missing(archived: Archived) -> None:
    assert "Archive study small" in archived.said.jobs
    assert "The study is complete: 4 runs (4 finished)." in archived.said.text
    assert "archive: results/small.crate.zip" in archived.said.text
    assert f"sha256: {files.sha256_file(archived.file)}" in archived.said.text
    assert not any(job.startswith("Archive") for job in archived.checkout.planned())
    held = {*tamper.load(archived.file)}
    assert held.issuperset(BESIDES)
    (dataset,) = (name for name in held if name.startswith("data/datasets/"))
    assert dataset.endswith("/manifest.json")
    assert not [name for name in held if name.endswith((".h5", ".safetensors"))]


def test_large_parts_are_in_it_if_asked_for_and_are_those_of_the_records(copied: Checkout) -> None:
    ask(copied, include={"data": True, "checkpoints": True, "traces": False})
    file, _ = make(copied)
    held = tamper.load(file)
    assert sum(name.endswith(".h5") for name in held) == 2
    assert sum(name.endswith("final.safetensors") for name in held) == 4
    assert sum(name.startswith(f"{TOP}weights/") for name in held) == 2
    assert not [name for name in held if "/parity/" in name and name.endswith(".npz")]
    assert holds(file)
    wrong = {name: b"x" for name in held if name.endswith((".h5", ".safetensors"))}
    tamper.store(file, tamper.reseal({**held, **wrong}, blocks=False))
    found = "\n".join(findings(file))
    assert [name for name in wrong if name not in found] == []


def test_every_stage_says_where_and_with_what_it_ran(archived: Archived) -> None:
    folder = archived.checkout.results() / "logs"
    job = json.loads((folder / "parity" / "mnist_cnn.json").read_text())
    assert job["status"] == 0 and job["started"] <= job["ended"]
    assert job["packages"]["numpy"] and job["host"]["cpu"]
    for path in folder.rglob("*.json"):
        assert record_schema.unsound(files.read_json(path), record_schema.JOB) is None


def python(checkout: Checkout, code: str, output: str, **environment: str) -> str:
    """Archive in a process of its own, after some code; returns the last line that it prints."""
    code += "; from lockstep.__main__ import main; status = main(sys.argv[1:])"
    code += "; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    command = ["archive", "--study", f"{TOP}study.json", "--output", output]
    done = subprocess.run(
        [sys.executable, "-c", f"import os, resource, sys; {code}", *command],
        cwd=checkout.root,
        env={**checkout.environment, "PYTHONPATH": "workflow", **environment},
        capture_output=True,
        text=True,
    )
    return done.stdout.splitlines()[-1] if done.returncode == 0 else done.stderr


def test_the_same_study_has_the_same_bytes(archived: Archived, copied: Checkout) -> None:
    other = {"TZ": "Asia/Kolkata", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    python(copied, "os.umask(0o077)", "again.zip", **other)
    assert (copied.root / "again.zip").read_bytes() == archived.file.read_bytes()


def test_memory_does_not_grow_with_size(copied: Checkout) -> None:
    def peak(size: int) -> int:
        """Archive a log that names the machine's folders, and the initial weights, so large."""
        log = b"a step was made in %s/results\n" % os.fsencode(copied.root)
        with open(copied.results() / "logs" / "long.log", "wb") as stream:
            stream.writelines([log * ((1 << 20) // len(log))] * (size >> 20))
        os.truncate(copied.results() / "weights" / "mnist_cnn" / "seed-0.safetensors", size)
        return int(python(copied, "pass", "big.zip"))

    ask(copied, include={"checkpoints": True})
    small, large = peak(1 << 20), peak(100 << 20)
    assert large - small < 40_000  # KiB


def test_what_is_wrong_is_one_line(archived: Archived) -> None:
    for output in ("x" * 300, "Snakefile/x.zip", "results"):
        said = python(archived.checkout, "pass", output)
        assert said.endswith("; nothing was archived\n") and said.count("\n") == 1


# The source -----------------------------------------------------------------------------------


def test_the_source_is_the_commit(archived: Archived) -> None:
    commit = git(archived.checkout.root, "rev-parse", "HEAD").strip()
    told = tamper.about(archived.file)["source"]
    assert told == {"commit": commit, "note": "the committed files"}


def test_what_git_does_not_track_is_named_and_archived_only_if_asked_for(copied: Checkout) -> None:
    (copied.root / "demo" / "notes.txt").write_text("some notes\n")
    file, said = make(copied)
    assert "left out, as git does not track them: demo/notes.txt\n" in said
    assert "source/demo/notes.txt" not in tamper.load(file)
    ask(copied, include={"untracked": True})
    assert "source/demo/notes.txt" in tamper.load(make(copied)[0])


def test_untracked_code_is_refused(copied: Checkout) -> None:
    (copied.root / "workflow" / "lockstep" / "mine.py").write_text("X = 1\n")
    assert "git does not track workflow/lockstep/mine.py" in refused(copied)


def test_code_that_trained_no_run_is_refused(copied: Checkout) -> None:
    copied.edit("workflow/lockstep/training/loop.py", "GIVE_UP = ", "GIVE_UP = 0 + ")
    assert "4 runs were trained by other code than is in" in refused(copied)


# What must not leave the machine --------------------------------------------------------------


def test_it_names_no_folder_of_the_machine_and_no_secret(archived: Archived) -> None:
    hidden = [str(archived.checkout.root), str(archived.checkout.home), SECRET]
    for name, content in tamper.load(archived.file).items():
        for text in hidden:
            assert text.encode() not in content, name


def test_secrets_and_paths_in_logs_are_replaced(
    copied: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_ACCESS_TOKEN", SECRET)
    monkeypatch.setenv("HOME", str(copied.home))
    name = f"{TOP}logs/train/mnist_cnn/jax-jit/1x1/seed-0.log"
    (copied.root / name).write_text(
        f"{copied.root}/results: full\n{copied.home}/.cache/x: no such file\ntoken {SECRET}\n"
    )
    file, _ = make(copied)
    assert tamper.load(file)[name].decode() == (
        "$CHECKOUT/results: full\n$HOME/.cache/x: no such file\ntoken [$TEST_ACCESS_TOKEN]\n"
    )
    assert name in tamper.about(file)["rewritten"]
    assert holds(file)


def test_a_study_with_absolute_folders_verifies_too(archived: Archived, tmp_path: Path) -> None:
    config = json.loads(json.dumps(archived.study.config))
    shutil.copytree(archived.checkout.results(), tmp_path / "out" / "small")
    shutil.copytree(archived.checkout.root / "data", tmp_path / "in")
    config["paths"] = {"results": str(tmp_path / "out"), "data": str(tmp_path / "in")}
    config["datasets"]["digits"]["raw"] = str(tmp_path / "raw")
    study = tmp_path / "out" / "small" / "study.json"
    study.write_text(json.dumps(config))
    archived.checkout.lockstep("archive", "--study", study)
    file = tmp_path / "out" / "small.crate.zip"
    assert all(str(tmp_path).encode() not in content for content in tamper.load(file).values())
    assert holds(file)
