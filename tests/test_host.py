"""What starts the processes of a study with images needs no package that is in the images alone."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT, environment


def packages(name: str) -> set[str]:
    """Return the packages of a lock, as they are imported if they are called the same."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return {line.partition("==")[0].replace("-", "_") for line in lines if line[:1].isalnum()}


@pytest.mark.parametrize(
    "module",
    ["training.block", "deploy.stage", "archive.build", "reproduce.repetition", "front_door"],
)
def test_it_can_be_imported_on_a_login_node(module: str) -> None:
    missing = packages("cpu") - packages("workflow")
    assert missing >= {"torch", "jax", "safetensors", "h5py"}
    code = f"import sys; sys.modules |= dict.fromkeys({sorted(missing)}); import lockstep.{module}"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
