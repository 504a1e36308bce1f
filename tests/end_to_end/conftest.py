"""One study that is finished, stage by stage; tests that change anything copy it first."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.end_to_end.checkout import Checkout, Said, small

STAGES = ("images", "datasets", "parity", "runs", "report")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is in this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.end_to_end)


@dataclass(frozen=True, kw_only=True)
class Finished:
    """A finished study.

    Attributes:
        checkout: where it was made; not to be changed.
        said: by stage.
        made: by stage, the files that it wrote.
    """

    checkout: Checkout
    said: dict[str, Said]
    made: dict[str, set[str]]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, home: Path, caches: Path) -> Finished:
    """The small study, made by asking for its stages one after the other."""
    checkout = Checkout.make(tmp_path_factory.mktemp("finished") / "lockstep", home, caches)
    checkout.write(small())
    said, made = {}, {}
    for stage in STAGES:
        before = checkout.files()
        said[stage] = checkout.snakemake(stage)
        after = checkout.files()
        made[stage] = {name for name, when in after.items() if before.get(name) != when}
    return Finished(checkout=checkout, said=said, made=made)


@pytest.fixture
def clone(tmp_path: Path, home: Path, caches: Path) -> Checkout:
    """A fresh copy of the repository, without results."""
    return Checkout.make(tmp_path / "lockstep", home, caches)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Checkout:
    """A copy of the finished study that a test may change."""
    return finished.checkout.duplicate(tmp_path / "lockstep")
