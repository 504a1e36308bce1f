"""One real study, run and archived from a git checkout; tests copy what they change."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest

from lockstep import files
from lockstep.archive import verify as verifying
from lockstep.archive.check_result import Check
from lockstep.study import Study
from tests.conftest import ROOT
from tests.end_to_end.checkout import Checkout, Said, small

AUTHORS = [
    {
        "name": "Ada Example",
        "orcid": "0000-0002-1825-0097",
        "affiliation": {"name": "Example University", "url": "https://example.org"},
    }
]
SECRET = "s3cr3t-value-of-a-token"

STUDY = small(
    workloads__mnist_cnn__epochs=1,
    seeds=[0, 1],
    threads=1,
    archive={
        "title": "Digits, twice",
        "authors": AUTHORS,
        "licence": "CC-BY-4.0",
        "repository": "https://example.org/lockstep",
        "doi": "10.5281/zenodo.1234567",
        "version": "1.0",
        "funding": [{"name": "Example Fund", "url": "https://example.org/fund", "grant": "EX-1"}],
    },
)
"""One epoch of the digits, in both frameworks, with two seeds."""


def git(root: Path, *arguments: str) -> str:
    """Run git as somebody whose settings do not matter."""
    name = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    done = subprocess.run(
        ["git", *name, *arguments], cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout


@dataclass(frozen=True, kw_only=True)
class Archived:
    """A finished study and its archive; not to be changed.

    Attributes:
        said: what a person saw of archiving.
    """

    checkout: Checkout
    file: Path
    said: Said

    @property
    def study(self) -> Study:
        """The study, with its folders where they are."""
        study = Study.at(self.checkout.results())
        study.data = self.checkout.root / "data"
        return study


@pytest.fixture(scope="session")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Archived:
    """The study, run and archived as a person does."""
    home = tmp_path_factory.mktemp("home")
    checkout = Checkout.make(tmp_path_factory.mktemp("archived") / "lockstep", home)
    shutil.copy2(ROOT / ".gitignore", checkout.root)
    (checkout.root / "slurm").symlink_to("profiles/slurm")
    git(checkout.root, "init", "--quiet")
    git(checkout.root, "add", "--all")
    git(checkout.root, "commit", "--quiet", "--message", "The workflow")
    os.environ["TEST_ACCESS_TOKEN"] = SECRET
    try:
        said = checkout.snakemake("archive", study=STUDY)
    finally:
        del os.environ["TEST_ACCESS_TOKEN"]
    return Archived(checkout=checkout, file=checkout.results("small.crate.zip"), said=said)


@pytest.fixture(scope="session")
def everything(archived: Archived, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same study's archive, its data and states included."""
    copied = archived.checkout.duplicate(tmp_path_factory.mktemp("everything") / "lockstep")
    path = copied.results() / "study.json"
    config = json.loads(path.read_text())
    config["archive"]["include"] |= {"data": True, "checkpoints": True}
    path.write_text(json.dumps(config))
    make(copied)
    return copied.results("small.crate.zip")


@pytest.fixture
def copied(archived: Archived, tmp_path: Path) -> Checkout:
    """A copy of the finished study that a test may change."""
    return archived.checkout.duplicate(tmp_path / "lockstep")


def make(checkout: Checkout, *more: object, status: int = 0) -> Said:
    """Archive by hand."""
    study = "results/small/study.json"
    return checkout.lockstep("archive", "--study", study, *more, status=status)


def grow(root: Path, study: str, size: int, log: int = 0) -> None:
    """Let a dataset's shard hold so much more than its arrays, and have the archive hold its data.

    Args:
        root: what `results` and `data` are in.
        log: size of a log that is given to it too, and names the machine's folders.
    """
    if log:
        line = b"a step was made in %s/results\n" % os.fsencode(root)
        with open(root / "results" / study / "logs" / "long.log", "wb") as stream:
            for _ in range(log >> 20):
                stream.write(line * ((1 << 20) // len(line)))
    path = root / "results" / study / "study.json"
    config = json.loads(path.read_text())
    config["archive"]["include"]["data"] = True
    path.write_text(json.dumps(config))
    if not size:
        return
    told = next((root / "data" / "datasets").glob("*/manifest.json"))
    dataset = json.loads(told.read_text())
    (entry,) = dataset["splits"]["train"]["shards"]
    shard, grown = told.parent / entry["file"], told.parent / "grown"
    shutil.copyfile(shard, grown)  # what it is a link to stays
    noise = np.random.default_rng(0)
    with h5py.File(grown, "r+") as file:
        file.pop("noise", None)
        array = file.create_dataset("noise", (size,), np.uint8)
        for start in range(0, size, 1 << 20):
            array[start : start + (1 << 20)] = np.frombuffer(noise.bytes(1 << 20), np.uint8)
    grown.replace(shard)
    entry |= {"bytes": shard.stat().st_size, "sha256": files.sha256_file(shard)}
    told.write_text(json.dumps(dataset))


@pytest.fixture
def file(archived: Archived, tmp_path: Path) -> Path:
    """A copy of the archive that a test may damage."""
    return Path(shutil.copy(archived.file, tmp_path / "copy.crate.zip"))


@pytest.fixture
def findings(file: Path) -> Callable[[], list[str]]:
    """What verifying the copy finds."""
    return lambda: wrong(verifying.verify(file))


def wrong(checks: list[Check]) -> list[str]:
    """All that does not hold, in one list."""
    return [problem for check in checks for problem in check.wrong]
