"""The workload of docs/adding-a-workload.md is sound as it stands there."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import DIGITS, ROOT

FILES = ("spec.py", "torch_model.py", "flax_model.py")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the repository's code with the page's workload in it and nothing else changed."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow", ignore=ignored)
    page = (ROOT / "docs" / "adding-a-workload.md").read_text()
    folder = tmp_path / "workflow" / "lockstep" / "workloads" / "mnist_mlp"
    folder.mkdir()
    (folder / "__init__.py").write_text('"""A perceptron."""\n')
    for name, text in zip(FILES, re.findall(r"```python\n(.*?)```", page, re.DOTALL), strict=True):
        (folder / name).write_text(text)
    return tmp_path


def test_the_pages_workload_climbs_the_ladder(clone: Path) -> None:
    study = {**DIGITS, "workloads": {"mnist_mlp": {"dataset": "digits"}}}
    (clone / "config.yaml").write_text(yaml.safe_dump({**study, "parity": {"steps": 30}}))
    shutil.copy(ROOT / "Snakefile", clone)
    command = ["snakemake", "parity", "--cores", "2", "--resources", "machine=100"]
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(clone)}
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=clone, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (clone / "results/test/parity/mnist_mlp/passed.json").is_file()
