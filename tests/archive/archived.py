"""One real study, run and archived from a git checkout; tests copy what they change."""

import contextlib
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lockstep.archive import archive_reader, build, verify
from lockstep.archive.verify import Check
from lockstep.errors import UserError
from lockstep.study import Study
from tests.conftest import ROOT
from tests.end_to_end.checkout import Checkout, Said, small

SECRET = "s3cr3t-value-of-a-token"
ORCID = "0000-0002-1825-0097"
PLACE = {"name": "Example University", "url": "https://example.org"}

STUDY = small(
    workloads__mnist_cnn__epochs=1,
    seeds=[0, 1],
    threads=1,
    archive={
        "title": "Digits, twice",
        "authors": [{"name": "Ada Example", "orcid": ORCID, "affiliation": PLACE}],
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


def commit(root: Path) -> None:
    """Make a repository of a folder, and commit all that is in it."""
    for arguments in ("init --quiet", "add --all", "commit --quiet --message Workflow"):
        git(root, *arguments.split())


@dataclass(frozen=True, kw_only=True)
class Archived:
    """A finished study and its archive; not to be changed."""

    checkout: Checkout
    file: Path
    said: Said  # what a person saw of archiving

    @property
    def study(self) -> Study:
        """The study, with its folders where they are."""
        study = Study.load(self.checkout.results())
        study.data = self.checkout.root / "data"
        return study


@pytest.fixture(scope="session")
def archived(tmp_path_factory: pytest.TempPathFactory) -> Archived:
    """The study, run and archived as a person does."""
    home = tmp_path_factory.mktemp("home")
    checkout = Checkout.make(tmp_path_factory.mktemp("archived") / "lockstep", home)
    shutil.copy2(ROOT / ".gitignore", checkout.root)
    (checkout.root / "slurm").symlink_to("profiles/slurm")
    commit(checkout.root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_ACCESS_TOKEN", SECRET)
        said = checkout.snakemake("archive", study=STUDY)
    return Archived(checkout=checkout, file=checkout.results("small.crate.zip"), said=said)


@pytest.fixture
def copied(archived: Archived, tmp_path: Path) -> Checkout:
    """A copy of the finished study that a test may change."""
    return archived.checkout.duplicate(tmp_path / "lockstep")


@pytest.fixture
def file(archived: Archived, tmp_path: Path) -> Path:
    """A copy of the archive that a test may damage."""
    return Path(shutil.copy(archived.file, tmp_path / "copy.crate.zip"))


def ask(checkout: Checkout, **fields: Any) -> None:
    """Change what the study's config says of its archive; `include` keeps what is not named."""
    path = checkout.results() / "study.json"
    config = json.loads(path.read_text())
    fields["include"] = {**config["archive"]["include"], **fields.get("include", {})}
    config["archive"] |= fields
    path.write_text(json.dumps(config))


def make(
    checkout: Checkout, *, output: str | None = "x.zip", partial: bool = False
) -> tuple[Path, str]:
    """Archive a study; returns the file, and what a person sees of it."""
    with contextlib.chdir(checkout.root):
        study, to = Study.load(Path("results/small/study.json")), Path(output) if output else None
        path, lines = build.build(study, partial=partial, output=to, root=checkout.root)
    return checkout.root / path, "\n".join(lines)


def refused(checkout: Checkout, **options: bool) -> str:
    """Say why a study cannot be archived."""
    with pytest.raises(UserError) as refusal:
        make(checkout, **options)
    assert not (checkout.root / "x.zip").exists()
    return str(refusal.value)


def checks(file: Path, **options: Any) -> list[Check]:
    """What holds and what does not hold in an archive (see `verify.verified`)."""
    with archive_reader.opened(file) as archive:
        return list(verify.verified(archive, **options))


def findings(file: Path) -> list[str]:
    """All that does not hold in an archive."""
    return [problem for check in checks(file) for problem in check.wrong]


def holds(file: Path, **options: Any) -> str:
    """Check that an archive holds; returns what is said of it."""
    found = checks(file, **options)
    assert [problem for check in found for problem in check.wrong] == []
    return "\n".join(line for check in found for line in check.lines())
