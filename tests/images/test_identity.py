"""What an image is called follows from what determines it, and from nothing else."""

import shutil
from pathlib import Path

import pytest

from lockstep.errors import UserError
from lockstep.images import identity

DIGEST = "docker:debian@sha256:" + "0" * 64


@pytest.fixture
def containers(tmp_path: Path) -> Path:
    """A copy of the definitions and locks."""
    return Path(shutil.copytree(identity.CONTAINERS, tmp_path / "containers"))


def test_the_same_recipe_has_the_same_identity_wherever_it_lies(containers: Path) -> None:
    for name in identity.NAMES:
        assert (
            identity.recipe(name, containers=containers).identity == identity.recipe(name).identity
        )


def test_a_cache_of_two_kinds_of_cpu_has_an_image_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def identities() -> set[str]:
        return {identity.recipe(name).identity for name in identity.NAMES}

    here = identities()
    monkeypatch.setattr(identity.platform, "machine", lambda: "riscv64")
    assert identities().isdisjoint(here)


def test_touching_a_file_changes_nothing(containers: Path) -> None:
    before = identity.recipe("torch", containers=containers).identity
    (containers / "torch.def").touch()
    assert identity.recipe("torch", containers=containers).identity == before


@pytest.mark.parametrize(
    ("changed", "other"),
    [
        ("torch.def", {"torch"}),
        ("locks/cuda12-jax.txt", {"jax"}),
        ("locks/debian-torch.txt", {"torch"}),
        ("locks/cuda13-torch.txt", set()),
        ("locks/base.txt", {"base", "torch", "jax"}),
        ("install.sh", {"base", "torch", "jax"}),
        ("smoke/torch.py", set()),
        ("README.md", set()),
    ],
)
def test_a_changed_file_changes_exactly_the_images_made_from_it(
    containers: Path, changed: str, other: set[str]
) -> None:
    def identities() -> dict[str, str]:
        return {n: identity.recipe(n, containers=containers).identity for n in identity.NAMES}

    before = identities()
    with open(containers / changed, "a") as stream:
        stream.write("\n# changed\n")
    after = identities()
    assert {name for name in before if before[name] != after[name]} == other


def test_cuda_generations_differ_but_share_the_base() -> None:
    twelve, thirteen = (identity.recipe("jax", cuda=cuda) for cuda in ("cuda12", "cuda13"))
    assert twelve.identity != thirteen.identity
    assert twelve.parent.identity == thirteen.parent.identity


def test_the_start_is_part_of_every_image() -> None:
    for name in identity.NAMES:
        assert identity.recipe(name, start=DIGEST).identity != identity.recipe(name).identity


@pytest.mark.parametrize(
    "start", ["docker:debian:trixie", "debian:trixie", "docker:x@sha256:12", ""]
)
def test_a_start_that_can_change_is_refused(start: str) -> None:
    with pytest.raises(UserError, match=r"images\.base is .*sha256"):
        identity.recipe("base", start=start)


def test_a_missing_lock_is_named(containers: Path) -> None:
    (containers / "locks" / "cuda12-jax.txt").unlink()
    with pytest.raises(UserError, match=r"cuda12-jax\.txt: no such file"):
        identity.recipe("jax", containers=containers)


class TestLocks:
    """The committed locks."""

    @pytest.mark.parametrize("cuda", ["cuda12", "cuda13"])
    def test_both_frameworks_are_on_one_cuda_generation(self, cuda: str) -> None:
        major = cuda.removeprefix("cuda")
        for name in ("torch", "jax"):
            versions = identity.locked_versions(identity.recipe(name, cuda=cuda).python_lock)
            facts = identity.cuda_facts(cuda, versions)
            assert facts["runtime"].split(".")[0] == major, facts
            assert facts.keys() == {"runtime", "cudnn", "nccl", "minimum_driver"}

    def test_what_images_share_has_one_version(self) -> None:
        base = identity.locked_versions(identity.recipe("base").python_lock)
        for name, cuda in [(n, c) for n in ("torch", "jax") for c in ("cuda12", "cuda13")]:
            versions = identity.locked_versions(identity.recipe(name, cuda=cuda).python_lock)
            assert {package: versions.get(package) for package in base} == base

    def test_every_package_has_a_hash_and_no_lock_names_a_host(self) -> None:
        for lock in (identity.CONTAINERS / "locks").glob("*.txt"):
            text = lock.read_text()
            assert "://" not in text
            if not lock.name.startswith("debian"):
                pinned = text.count("==")
                assert pinned == len(identity.locked_versions(lock)) > 10
                assert text.count("--hash=sha256:") >= pinned
