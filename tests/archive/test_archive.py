"""What an archive holds, and what it never does."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lockstep import files
from lockstep.archive import build, layout, verify
from lockstep.errors import UserError
from lockstep.records import record_schema
from tests.archive import tamper
from tests.archive.conftest import SECRET, Archived, ask, git, make, wrong
from tests.end_to_end.checkout import Checkout


def names(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as file:
        return set(file.namelist())


def test_the_workflow_makes_it_and_says_how_complete_it_is(archived: Archived) -> None:
    assert "Archive study small" in archived.said.jobs
    assert "The study is complete: 4 runs (4 finished)." in archived.said.text
    assert "archive: results/small.crate.zip" in archived.said.text
    assert f"sha256: {files.sha256_file(archived.file)}" in archived.said.text


def test_it_is_not_made_unasked(archived: Archived) -> None:
    assert not any(job.startswith("Archive") for job in archived.checkout.planned())


def test_it_holds_what_a_stranger_needs(archived: Archived) -> None:
    held = names(archived.file)
    top = "results/small/"
    for name in (
        "README.md",
        "archive.json",
        "manifest-sha256.txt",
        "metadata.json",
        "CITATION.cff",
        "ro-crate-metadata.json",
        "study/study.json",
        "source/Snakefile",
        "source/workflow/lockstep/__main__.py",
        "source/containers/locks/base.txt",
        f"{top}study.json",
        f"{top}report/index.html",
        f"{top}report/tables/comparisons.csv",
        f"{top}parity/mnist_cnn/torch-eager.npz",
        f"{top}parity/mnist_cnn/passed.json",
        f"{top}runs/mnist_cnn/jax-jit/1x1/seed-1/steps.npz",
        f"{top}logs/train/mnist_cnn/jax-jit/1x1/seed-1.json",
        f"{top}logs/preprocess/digits.json",
    ):
        assert name in held, name
    datasets = [n for n in held if n.startswith("data/datasets/")]
    assert len(datasets) == 1 and datasets[0].endswith("/manifest.json")


def test_large_parts_are_left_out_unless_asked_for(archived: Archived, copied: Checkout) -> None:
    assert not [n for n in names(archived.file) if n.endswith((".h5", ".safetensors"))]
    ask(copied, include={"data": True, "checkpoints": True, "traces": False})
    make(copied, "--output", "more.zip")
    held = names(copied.root / "more.zip")
    assert sum(n.endswith(".h5") for n in held) == 2
    assert sum(n.endswith("final.safetensors") for n in held) == 4
    assert sum(n.startswith("results/small/weights/") for n in held) == 2
    assert not [n for n in held if "/parity/" in n and n.endswith(".npz")]
    assert wrong(verify.verify(copied.root / "more.zip")) == []


def test_every_stage_says_where_and_with_what_it_ran(archived: Archived) -> None:
    folder = archived.checkout.results() / "logs"
    job = json.loads((folder / "parity" / "mnist_cnn.json").read_text())
    assert job["status"] == 0 and job["started"] <= job["ended"]
    assert job["packages"]["numpy"] and job["host"]["cpu"]
    paths = [*folder.rglob("*.json")]
    assert not any(record_schema.unsound(files.read_json(p), record_schema.JOB) for p in paths)
    stages = {path.relative_to(folder).parts[0] for path in paths}
    assert stages == {"preprocess", "weights", "trace", "parity", "train", "report"}


# The same bytes -------------------------------------------------------------------------------


def test_the_same_study_has_the_same_bytes(archived: Archived, copied: Checkout) -> None:
    other = {"TZ": "Asia/Kolkata", "LC_ALL": "C", "PYTHONHASHSEED": "7", "PYTHONPATH": "workflow"}
    study, code = "results/small/study.json", "import os, sys; os.umask(0o077); "
    code += "from lockstep.__main__ import main; sys.exit(main(sys.argv[1:]))"
    subprocess.run(
        [sys.executable, "-c", code, "archive", "--study", study, "--output", "again.zip"],
        cwd=copied.root,
        env={**copied.environment, **other},
        check=True,
    )
    assert (copied.root / "again.zip").read_bytes() == archived.file.read_bytes()


def test_memory_does_not_grow_with_size(copied: Checkout) -> None:
    def peak(size: int) -> int:
        """Archive a log that names the machine's folders, and the initial weights, so large."""
        log = b"a step was made in %s/results\n" % os.fsencode(copied.root)
        with open(copied.results() / "logs" / "long.log", "wb") as stream:
            stream.writelines([log * ((1 << 20) // len(log))] * (size >> 20))
        weights = copied.results() / "weights" / "mnist_cnn" / "seed-0.safetensors"
        with open(weights, "ab") as stream:
            stream.truncate(size)
        code = (
            "import resource, sys; from lockstep.__main__ import main;"
            "assert main(sys.argv[1:]) == 0;"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        )
        command = ["archive", "--study", "results/small/study.json", "--output", "big.zip"]
        done = subprocess.run(
            [sys.executable, "-c", code, *command],
            cwd=copied.root,
            env={**copied.environment, "PYTHONPATH": "workflow"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout.splitlines()[-1])

    ask(copied, include={"checkpoints": True})
    small, large = peak(1 << 20), peak(100 << 20)
    assert large - small < 40_000  # KiB


def test_a_name_that_no_file_can_have_is_one_line(copied: Checkout) -> None:
    said = make(copied, "--output", "x" * 300, status=2)
    assert "File name too long; nothing was archived" in said.text


# The source -----------------------------------------------------------------------------------


def test_the_source_is_the_commit(archived: Archived) -> None:
    told = tamper.about(archived.file)
    assert told["source"]["commit"] == git(archived.checkout.root, "rev-parse", "HEAD").strip()
    assert told["source"]["note"] == "the committed files"
    listed = set(git(archived.checkout.root, "ls-files").split())
    held = names(archived.file)
    assert {n.removeprefix("source/") for n in held if n.startswith("source/")} == listed
    assert told["links"] == ["source/slurm"]
    mode = (archived.checkout.root / "containers" / "install.sh").stat().st_mode
    assert ("source/containers/install.sh" in told["executable"]) == bool(mode & 0o100)


def test_tracked_files_are_archived_as_they_are_and_others_are_named(copied: Checkout) -> None:
    with open(copied.root / "config.yaml", "a") as config:
        config.write("# an afterthought\n")
    (copied.root / "docs").mkdir()
    (copied.root / "demo" / "kaggle.json").write_text('{"key": "' + "0a" * 16 + '"}')
    (copied.root / "private.txt").write_text("beside the workflow\n")
    said = make(copied).text
    assert "left out, as git does not track them: demo/kaggle.json\n" in said
    contents = tamper.load(copied.results("small.crate.zip"))
    assert contents["source/config.yaml"].endswith(b"# an afterthought\n")
    assert "source/demo/kaggle.json" not in contents and "source/private.txt" not in contents
    note = json.loads(contents[layout.ABOUT])["source"]["note"]
    assert note == "the committed files, but for 1 that were changed: config.yaml"
    assert wrong(verify.verify(copied.results("small.crate.zip"))) == []
    ask(copied, include={"untracked": True})
    assert "demo/kaggle.json: has a name as files of keys" in make(copied, status=2).text
    (copied.root / "demo" / "kaggle.json").unlink()
    (copied.root / "demo" / "notes.txt").write_text("some notes\n")
    make(copied)
    assert "source/demo/notes.txt" in tamper.load(copied.results("small.crate.zip"))


def test_untracked_code_is_refused(copied: Checkout) -> None:
    (copied.root / "workflow" / "lockstep" / "mine.py").write_text("X = 1\n")
    assert "git does not track workflow/lockstep/mine.py" in make(copied, status=2).text


def test_without_git_the_files_are_archived_as_they_are(copied: Checkout) -> None:
    shutil.rmtree(copied.root / ".git")
    make(copied)
    contents = tamper.load(copied.results("small.crate.zip"))
    told = json.loads(contents[layout.ABOUT])
    assert told["source"]["commit"] is None
    assert "their commit is not known" in told["source"]["note"]
    assert b"their commit is not known" in contents[layout.README]
    assert "source/workflow/lockstep/__main__.py" in contents
    assert wrong(verify.verify(copied.results("small.crate.zip"))) == []


def test_code_that_trained_no_run_is_refused(
    archived: Archived, copied: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copied.root)
    copied.edit("workflow/lockstep/training/loop.py", "GIVE_UP = ", "GIVE_UP = 0 + ")
    said = make(copied, status=2)
    assert "4 runs were trained by other code than is in" in said.text
    copied.edit("workflow/lockstep/training/loop.py", "GIVE_UP = ", "GIVE_UP = (")
    with pytest.raises(UserError, match="the code cannot be read"):
        build.build(archived.study, output=copied.root / "x.zip", root=copied.root)


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
    log = copied.results() / "logs" / "train" / "mnist_cnn" / "jax-jit" / "1x1" / "seed-0.log"
    token = "ghp_" + "a1B2" * 9
    log.write_text(
        f"{copied.root}/results: full\n{copied.home}/.cache/x: no such file\n"
        f"token {SECRET} and {token}\nhttps:"
        "//me:password@a.org/simple\n/home/ada/x\n"
    )
    make(copied)
    contents = tamper.load(copied.results("small.crate.zip"))
    told = json.loads(contents[layout.ABOUT])
    name = "results/small/logs/train/mnist_cnn/jax-jit/1x1/seed-0.log"
    assert contents[name].decode() == (
        "$CHECKOUT/results: full\n$HOME/.cache/x: no such file\n"
        "token [$TEST_ACCESS_TOKEN] and [removed]\nhttps:"
        "//[removed]@a.org/simple\n$HOME/x\n"
    )
    assert name in told["rewritten"]
    assert wrong(verify.verify(copied.results("small.crate.zip"))) == []


def test_a_study_with_absolute_folders_verifies_too(archived: Archived, tmp_path: Path) -> None:
    study = archived.study
    config = json.loads(json.dumps(study.config))
    shutil.copytree(archived.checkout.results(), tmp_path / "out" / "small")
    shutil.copytree(archived.checkout.root / "data", tmp_path / "in")
    config["paths"] = {"results": str(tmp_path / "out"), "data": str(tmp_path / "in")}
    config["datasets"]["digits"]["raw"] = str(tmp_path / "raw")
    (tmp_path / "out" / "small" / "study.json").write_text(json.dumps(config))
    archived.checkout.lockstep("archive", "--study", tmp_path / "out" / "small" / "study.json")
    file = tmp_path / "out" / "small.crate.zip"
    for name, content in tamper.load(file).items():
        assert str(tmp_path).encode() not in content, name
    assert wrong(verify.verify(file)) == []
