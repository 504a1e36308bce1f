"""The workflow's source as git knows it, whatever a person's git is set to."""

from pathlib import Path

import pytest

from lockstep.archive import source
from tests.archive.conftest import git


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A commit of two files, one of them changed since."""
    root = tmp_path / "checkout"
    (root / "workflow").mkdir(parents=True)
    (root / "Snakefile").write_text("rule all:\n    input: []\n")
    (root / "workflow" / "other.txt").write_text("other\n")
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "The workflow")
    (root / "Snakefile").write_text("rule all:\n    input: ['x']\n")
    return root


def test_the_difference_does_not_depend_on_a_persons_settings(checkout: Path) -> None:
    plain = source.find(checkout).difference
    assert (
        plain.startswith(b"diff --git a/Snakefile b/Snakefile\n") and b"+    input: ['x']" in plain
    )
    for name, value in (
        ("color.ui", "always"),
        ("diff.noprefix", "true"),
        ("diff.context", "0"),
        ("core.abbrev", "4"),
    ):
        git(checkout, "config", name, value)
    assert source.find(checkout).difference == plain


def test_what_is_called_like_a_key_goes_in_only_where_it_is_committed(checkout: Path) -> None:
    for name in ("ca.pem", ".env", "id_ed25519", "id_card.txt"):
        (checkout / "workflow" / name).write_text("x\n")
    git(checkout, "add", "workflow/ca.pem")
    git(checkout, "commit", "--quiet", "--message", "A certificate", "workflow/ca.pem")
    found = source.find(checkout)
    names = {"Snakefile", "workflow/other.txt", "workflow/ca.pem", "workflow/id_card.txt"}
    assert set(found.files) == names
    assert b"id_card" in found.difference and b"id_ed25519" not in found.difference
    assert found.note.endswith("left out, as keys are called so: .env, id_ed25519")
    (checkout / ".git").rename(checkout / "git")
    assert set(source.find(checkout).files) == names - {"workflow/ca.pem"}


def test_a_submodule_is_no_file_of_the_source(checkout: Path) -> None:
    (checkout / "plugin").mkdir()
    entry = f"160000,{git(checkout, 'rev-parse', 'HEAD').strip()},plugin"
    git(checkout, "update-index", "--add", "--cacheinfo", entry)
    git(checkout, "commit", "--quiet", "--message", "A plugin")
    assert source.find(checkout).files == ("Snakefile", "workflow/other.txt")
    assert len(source.state(checkout)) == 64
