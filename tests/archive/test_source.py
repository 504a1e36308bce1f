"""The workflow's source as git knows it, whatever a person's git is set to."""

from pathlib import Path

import pytest

from lockstep.archive import gather, source
from lockstep.archive.redact import Rules
from tests.archive.conftest import git


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A commit of two files, one of them changed since."""
    root = tmp_path / "checkout"
    (root / "workflow").mkdir(parents=True)
    (root / "Snakefile").write_text("rule all:\n    input: []\n")
    (root / "workflow" / "other.txt").write_text("other\n\nand more\n")
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "The workflow")
    (root / "Snakefile").write_text("rule all:\n    input: ['x']\n")
    return root


def changed(checkout: Path) -> source.Source:
    """The source with changes that settings of git could show in another way."""
    (checkout / "workflow" / "other.txt").write_text("another\n\nand more\n")
    (checkout / "workflow" / "new.pyc").write_text("x\r\n" * 20)
    (checkout / "workflow" / "table.bin").write_bytes(bytes(range(256)) * 40)
    return source.find(checkout)


def test_the_difference_does_not_depend_on_a_persons_settings(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = changed(checkout)
    assert plain.difference.startswith(b"diff --git a/Snakefile b/Snakefile\n")
    assert b"+    input: ['x']" in plain.difference and b"\n \n" in plain.difference
    (tmp_path / "attributes").write_text("Snakefile -diff\n")
    for name, value in (
        ("color.ui", "always"),
        ("diff.noprefix", "true"),
        ("diff.mnemonicPrefix", "true"),
        ("diff.context", "0"),
        ("diff.algorithm", "histogram"),
        ("diff.renames", "copies"),
        ("diff.external", "false"),
        ("diff.suppressBlankEmpty", "true"),
        ("core.abbrev", "4"),
        ("core.autocrlf", "input"),
        ("core.quotePath", "true"),
        ("core.compression", "9"),
        ("core.attributesFile", str(tmp_path / "attributes")),
    ):
        git(checkout, "config", name, value)
        assert source.find(checkout) == plain, name
    monkeypatch.setenv("GIT_DIFF_OPTS", "-u0")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    assert source.find(checkout) == plain


def test_what_only_attributes_or_an_old_version_call_binary_is_shown_as_text(
    checkout: Path, tmp_path: Path
) -> None:
    (checkout / "workflow" / "was.txt").write_bytes(b"once\0binary\n")
    (checkout / "workflow" / "table.bin").write_bytes(bytes(range(256)))
    git(checkout, "add", "--all")
    git(checkout, "commit", "--quiet", "--message", "Binary files")
    git(checkout, "clone", "--quiet", str(checkout), str(tmp_path / "clone"))
    (checkout / ".gitattributes").write_text("*.lock -diff\n")
    (checkout / "workflow" / "p.lock").write_text("at https://me:password@example.org\n")
    (checkout / "workflow" / "was.txt").write_text("now a text\n")
    (checkout / "workflow" / "table.bin").write_bytes(bytes(range(255)))
    found = source.find(checkout)
    assert b"+at https://me:password@example.org" in found.difference
    assert b"+now a text" in found.difference
    assert found.difference.count(b"GIT binary patch") == 1
    (tmp_path / "source.diff").write_bytes(found.difference)
    git(tmp_path / "clone", "apply", str(tmp_path / "source.diff"))
    for name in found.files:
        assert (tmp_path / "clone" / name).read_bytes() == (checkout / name).read_bytes()


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


def test_what_may_be_executed_is_said_by_the_owners_bit_whoever_archives(checkout: Path) -> None:
    (checkout / "Snakefile").chmod(0o655)  # root may execute it
    (checkout / "workflow" / "other.txt").chmod(0o744)
    items = gather._source(source.find(checkout), Rules(secrets=(), paths=()))
    executable = [item.name for item in items if item.notes and item.notes.get("executable")]
    assert executable == ["source/workflow/other.txt"]


def test_a_submodule_is_no_file_of_the_source(checkout: Path) -> None:
    (checkout / "plugin").mkdir()
    entry = f"160000,{git(checkout, 'rev-parse', 'HEAD').strip()},plugin"
    git(checkout, "update-index", "--add", "--cacheinfo", entry)
    git(checkout, "commit", "--quiet", "--message", "A plugin")
    assert source.find(checkout).files == ("Snakefile", "workflow/other.txt")
    assert len(source.state(checkout)) == 64
