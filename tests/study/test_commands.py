"""What a person mistypes on the command line is one line and status 2."""

import copy
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lockstep import __main__ as command_line
from lockstep import files
from lockstep.errors import UserError
from lockstep.study import Study, config
from lockstep.training import checkpoint
from tests.conftest import DIGITS, ROOT


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study's config, of which nothing has been made."""
    paths = {"results": str(tmp_path / "results"), "data": str(tmp_path / "data")}
    made = Study(config.complete(copy.deepcopy(DIGITS) | {"paths": paths}))
    files.write_json(made.path, made.config)
    return made.path


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("weights --workload mnist_cnm --seed 0", "no workload 'mnist_cnm'; did you mean"),
        ("trace --workload mnist_cnn --variant jax-git", "no variant 'jax-git'; did you mean"),
        ("trace --workload mnist --variant jax-jit", "no workload 'mnist'; did you mean"),
        ("parity --workload mnist", "no workload 'mnist'; did you mean"),
        ("download --dataset digit", "no dataset 'digit'; did you mean 'digits'?"),
        ("preprocess --dataset digit", "no dataset 'digit'; did you mean 'digits'?"),
        ("image --name jax", "no image 'jax'; none are known here"),
        ("train --block mnist_cnn", "no block 'mnist_cnn'; "),
    ],
)
def test_a_name_that_the_study_does_not_have(
    study: Path, line: str, says: str, capsys: pytest.CaptureFixture
) -> None:
    command, *more = line.split()
    assert command_line.main([command, "--study", str(study), *more]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith("lockstep: error: study test has ")
    assert says in told


LACKS = """
import sys
from lockstep.__main__ import main
for package in sys.argv[1].split(","):
    sys.modules[package] = None  # as if it were not installed
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("package", "line", "remedy"),
    [
        ("torchvision", "download --dataset mnist", "name it as `raw` in the config's datasets"),
        ("h5py", "preprocess --dataset digits", "set images.enabled to true"),
        ("safetensors", "weights --workload mnist_cnn --seed 0", "images.enabled to true"),
    ],
)
def test_a_package_that_is_not_installed(study: Path, package: str, line: str, remedy: str) -> None:
    raw = files.read_json(study)
    raw["datasets"]["mnist"] = {**raw["datasets"]["digits"], "source": "mnist"}
    files.write_json(study, raw)
    command, *more = line.split()
    told = subprocess.run(
        [sys.executable, "-c", LACKS, package, command, "--study", study, *more],
        capture_output=True,
        text=True,
    )
    assert told.returncode == 2
    assert told.stderr.startswith(f"lockstep: error: {package} is not installed here; ")
    assert told.stderr.endswith(f"{remedy}\n")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"source": "mnist", "raw": "staged"}, "has its raw files in staged, where a person put"),
        ({"source": "image_folder"}, "is of source image_folder, which has no download"),
    ],
)
def test_what_is_not_downloaded(
    study: Path, entry: dict, says: str, capsys: pytest.CaptureFixture
) -> None:
    raw = files.read_json(study)
    raw["datasets"]["more"] = raw["datasets"]["digits"] | entry
    files.write_json(study, raw)
    assert command_line.main(["download", "--study", str(study), "--dataset", "more"]) == 2
    assert says in capsys.readouterr().err


def test_the_doctor_looks_at_packages(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    mnist = {"datasets": {"digits": {"source": "mnist"}}, "paths": {"data": str(tmp_path)}}
    path.write_text(yaml.safe_dump(copy.deepcopy(DIGITS) | mnist))
    line = [sys.executable, "-c", LACKS, "torch,torchvision", "doctor", path]
    told = subprocess.run(line, capture_output=True, text=True).stdout
    assert "FAIL  packages: this Python lacks torch, which the stages import\n" in told
    assert "FAIL  packages: this Python lacks torchvision, which downloads digits\n" in told


def test_a_study_is_named_by_its_folder_too(study: Path) -> None:
    assert Study.load(study.parent).config == Study.load(study).config
    moved = study.parent.rename(study.parent.with_name("moved"))
    for path in (moved, moved / "study.json"):
        assert Study.load(path).root == moved


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("study.json/x", None, "no such file; name the folder of a study that was started"),
        ("nowhere", None, "no such file; name the folder of a study that was started"),
        ("empty", None, "empty/study.json: no such file; name the folder"),
        ("config.yaml", "study: test\n", "is a config, not the study.json that a run makes; name"),
        ("other.json", "{}", "is not the study.json of a study; name the folder"),
        ("other.json", "[]", "is not the study.json of a study; name the folder"),
    ],
)
def test_what_is_no_study(
    study: Path, name: str, content: str | None, says: str, capsys: pytest.CaptureFixture
) -> None:
    (study.parent / "empty").mkdir()
    path = study.parent / name
    if content:
        path.write_text(content)
    assert command_line.main(["tell", "--study", str(path)]) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"lockstep: error: {path}")
    assert says in told


@pytest.mark.parametrize("given", ["454820be", "0" * 63 + "x", "SHA256"])
def test_what_is_no_sha256_accuses_no_archive(given: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.main(["verify", "study.crate.zip", "--sha256", given])
    assert ended.value.code == 2
    assert f"{given!r} is no sha256, which has 64 hexadecimal digits" in capsys.readouterr().err


def test_a_checkpoint_that_is_a_file(study: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        checkpoint.load(study)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EACCES, "permission denied; let this user write there"),
        (errno.EROFS, "read-only file system; use a folder that can be written"),
        (errno.EIO, "input/output error; the file system does not work"),
        (errno.ESTALE, "stale file handle; the file system does not work"),
        (errno.ENOSPC, "no space left on device; free some space"),
    ],
)
def test_a_file_system_that_refuses_is_one_line(
    study: Path,
    number: int,
    remedy: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    def refuse(self: Path, content: bytes) -> int:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    assert command_line.main(["preprocess", "--study", str(study), "--dataset", "digits"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("lockstep: error: ")
    assert remedy in said


def test_whoever_stops_reading_ends_a_command_without_a_word() -> None:
    line = [sys.executable, "-u", "-m", "lockstep", "check", "demo/config.yaml"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(line, stdout=write, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
