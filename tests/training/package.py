"""Runs of a package whose code is another in one place."""

import shutil
import subprocess
import sys
from pathlib import Path

from lockstep.study import Study
from tests.conftest import PATIENCE, environment


def edited(folder: Path, old: str, new: str, file: str = "feed.py") -> Path:
    """Return a copy of the package in which a file of `training` is another."""
    copy = folder / "edited"
    shutil.copytree(environment()["PYTHONPATH"], copy)  # with its byte code
    path = copy / "lockstep" / "training" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return copy


def train_with(package: Path, study: Study, block: str) -> subprocess.CompletedProcess:
    """Train a block with such a copy."""
    command = [sys.executable, "-m", "lockstep", "train", "--study", study.path, "--block", block]
    env = {**environment(), "PYTHONPATH": str(package)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE)
