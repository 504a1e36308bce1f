"""The workload of docs/adding-a-workload.md is sound as it stands there, outside of the code."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests import letters
from tests.conftest import DIGITS, ROOT, lockstep

VARIANTS = {
    "torch-eager": {"framework": "torch", "mode": "eager"},
    "jax-jit": {"framework": "jax", "mode": "jit"},
}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of a person's own, with the page's files and a study of them."""
    letters.write(tmp_path / "mine")
    study = {
        **DIGITS,
        "datasets": {"letters": {"source": "mine/letters.py"}},
        "workloads": {"letters_lm": {"workload": "mine/letters_lm", "dataset": "letters"}},
        "variants": VARIANTS,
        "parity": {"steps": 40},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    shutil.copy(ROOT / "Snakefile", tmp_path)
    return tmp_path


def made(folder: Path, target: str) -> subprocess.CompletedProcess:
    command = ["snakemake", target, "--cores", "2", "--resources", "machine=100"]
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_the_pages_workload_climbs_the_ladder_and_what_differs_is_named(mine: Path) -> None:
    done = made(mine, "parity")
    assert done.returncode == 0, done.stderr
    assert (mine / "results/test/parity/letters_lm/passed.json").is_file()
    path = mine / "mine/letters_lm/flax_model.py"
    sound = path.read_text()
    path.write_text(sound.replace("approximate=False", "approximate=True"))
    assert sound != path.read_text()
    done = made(mine, "parity")
    assert done.returncode != 0
    assert "letters_lm: jax-jit is not torch-eager: float64 layers: output" in done.stderr
    why = "; cause: GELU. JAX: GELU by tanh; PyTorch: GELU by erf. `nn.gelu(x, approximate=False)`"
    assert why in done.stderr and why in (ROOT / "docs/porting.md").read_text()
    command = "lockstep port results/test/study.json --workload letters_lm"
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=mine,
        env={**os.environ, "PYTHONPATH": "workflow"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "cause: GELU. the port: GELU by tanh; PyTorch: GELU by erf." in done.stdout


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("letters_lm/spec.py", ("CONTEXT = 3", "CONTEXT = THREE"), ", line 24: NameError: name"),
        ("letters_lm/spec.py", ("CONTEXT = 3", "CONTEXT = (3"), ": SyntaxError: '(' was never"),
        ("letters_lm/spec.py", ("WORKLOAD =", "WORKLOD ="), "has no attribute 'WORKLOAD'"),
        ("letters.py", ("LENGTH = 32", "LENGTH ="), ": SyntaxError: invalid syntax (letters.py"),
        (
            "letters.py",
            ("def read", "def reed"),
            " is no source: it has neither read(raw, options)",
        ),
    ],
)
def test_what_is_wrong_in_a_file_of_ones_own_is_one_line(
    mine: Path, file: str, change: tuple[str, str], says: str
) -> None:
    path = mine / "mine" / file
    path.write_text(path.read_text().replace(*change))
    done = lockstep("check", "config.yaml", cwd=mine, check=False)
    assert done.returncode == 2, done.stderr
    (told,) = done.stderr.splitlines()
    assert told.startswith("lockstep: error: ") and str(path) in told and says in told
