"""One real study, run and archived from a git checkout; tests copy what they change."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from lockstep.archive import verify as verifying
from lockstep.archive.verify import Check
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
    ask(copied, include={"data": True, "checkpoints": True})
    make(copied)
    return copied.results("small.crate.zip")


@pytest.fixture
def copied(archived: Archived, tmp_path: Path) -> Checkout:
    """A copy of the finished study that a test may change."""
    return archived.checkout.duplicate(tmp_path / "lockstep")


def ask(checkout: Checkout, *, include: Mapping[str, bool] | None = None, **fields: object) -> None:
    """Change what the study's config says of its archive."""
    path = checkout.results() / "study.json"
    config = json.loads(path.read_text())
    config["archive"] |= fields
    config["archive"]["include"] |= include or {}
    path.write_text(json.dumps(config))


def make(checkout: Checkout, *more: object, status: int = 0) -> Said:
    """Archive by hand."""
    study = "results/small/study.json"
    return checkout.lockstep("archive", "--study", study, *more, status=status)


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
