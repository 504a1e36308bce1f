"""What a person mistypes on the command line is one line and status 2."""

import copy
from pathlib import Path

import pytest

from lockstep import __main__ as command_line
from lockstep import files
from lockstep.errors import UserError
from lockstep.study import Study, config
from lockstep.training import checkpoint
from tests.conftest import DIGITS


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


def test_a_study_below_a_file_or_that_is_a_folder(
    study: Path, capsys: pytest.CaptureFixture
) -> None:
    for path, says in ((study / "x", "no such file"), (study.parent, "is a folder, not a file")):
        assert command_line.main(["report", "--study", str(path)]) == 2
        assert capsys.readouterr().err == f"lockstep: error: {path}: {says}\n"


def test_a_checkpoint_that_is_a_file(study: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        checkpoint.load(study)
