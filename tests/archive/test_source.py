"""The workflow's source as git tracks it, whatever a person's git is set to."""

from pathlib import Path

import pytest

from lockstep.archive import collect, source
from lockstep.archive.secret_rules import Rules
from tests.archive.archived import commit, git


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A commit of two files, one of them changed since."""
    root = tmp_path / "checkout"
    (root / "workflow").mkdir(parents=True)
    (root / "Snakefile").write_text("rule all:\n    input: []\n")
    (root / "workflow" / "other.txt").write_text("other\n\nand more\n")
    commit(root)
    (root / "Snakefile").write_text("rule all:\n    input: ['x']\n")
    return root


FILES = ("Snakefile", "workflow/other.txt")


def test_what_is_tracked_is_the_source_and_the_rest_is_named(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("workflow/new.py", "workflow/b.pyc", "elsewhere.txt"):
        (checkout / name).write_text("x\n")
    (checkout / ".gitignore").write_text("*.pyc\n")
    found = source.find(checkout)
    assert (found.files, found.untracked) == (FILES, ("workflow/new.py",))
    assert found.note == "the committed files, but for 1 that were changed: Snakefile"
    assert found.with_untracked().files == ("Snakefile", "workflow/new.py", "workflow/other.txt")
    monkeypatch.chdir(checkout / "workflow")
    assert source.find(checkout) == found
    git(checkout, "add", "workflow/new.py")
    assert "workflow/new.py" in source.find(checkout).files


def test_what_was_only_touched_was_not_changed(checkout: Path) -> None:
    git(checkout, "checkout", "--quiet", "Snakefile")
    text = (checkout / "Snakefile").read_text()
    (checkout / "Snakefile").write_text(text)
    assert source.find(checkout).note == "the committed files"
    before = source.state(checkout)
    (checkout / "Snakefile").write_text(text + "# more\n")
    assert source.state(checkout) != before


def test_without_git_the_known_parts_are_the_source(checkout: Path) -> None:
    (checkout / ".git").rename(checkout / "git")
    found = source.find(checkout)
    assert (found.files, found.commit) == (FILES, None)
    assert "their commit is not known" in found.note


def test_what_may_be_executed_is_said_by_the_owners_bit_whoever_archives(checkout: Path) -> None:
    (checkout / "Snakefile").chmod(0o655)  # root may execute it
    (checkout / "workflow" / "other.txt").chmod(0o744)
    items = collect._source(source.find(checkout), Rules(values=(), paths=()))
    assert [item.name for item in items if item.executable] == ["source/workflow/other.txt"]


def test_a_submodule_is_no_file_of_the_source(checkout: Path) -> None:
    (checkout / "plugin").mkdir()
    entry = f"160000,{git(checkout, 'rev-parse', 'HEAD').strip()},plugin"
    git(checkout, "update-index", "--add", "--cacheinfo", entry)
    git(checkout, "commit", "--quiet", "--message", "A plugin")
    assert source.find(checkout).files == FILES
    assert len(source.state(checkout)) == 64
