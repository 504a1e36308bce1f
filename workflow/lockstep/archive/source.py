"""The workflow's own source: what git tracks, as it is on the disk."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

PARTS = (
    "Snakefile", "workflow", "profiles", "containers", "config.yaml", "demo", "requirements",
    "Makefile", "README.md", "LICENSE", "CITATION.cff", "pyproject.toml", "docs", "slurm",
)  # fmt: skip
"""What a copy without git is known to consist of."""

SKIPPED = {"__pycache__", ".snakemake", ".venv", "results", "data"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """The source of a study's workflow.

    Attributes:
        root: the checkout.
        files: below it, sorted; links are not followed.
        untracked: files in the same folders that git neither tracks nor ignores.
        commit: None without git.
        note: how `files` differ from the commit, for people.
    """

    root: Path
    files: tuple[str, ...]
    untracked: tuple[str, ...]
    commit: str | None
    note: str

    def with_untracked(self) -> "Source":
        """Return the same with its untracked files among the others."""
        files = tuple(sorted({*self.files, *self.untracked}))
        more = f", and {len(self.untracked)} untracked files" if self.untracked else ""
        return replace(self, files=files, untracked=(), note=self.note + more)


def find(root: Path = ROOT) -> Source:
    """Return the source in a checkout, or in a copy that git does not know."""
    try:
        return _by_git(root)
    except FileNotFoundError:
        problem = "git is not installed"
    except subprocess.CalledProcessError as error:
        problem = (error.stderr.decode(errors="replace").strip().splitlines() or ["git failed"])[0]
        problem = " ".join(word for word in problem.split() if "/" not in word)[:120]
    return Source(
        root=root,
        files=tuple(sorted(_walk(root))),
        untracked=(),
        commit=None,
        note=f"the files as they were; their commit is not known ({problem})",
    )


def _by_git(root: Path) -> Source:
    top = Path(os.fsdecode(_git(root, "rev-parse", "--show-toplevel")).strip())
    if top.resolve() != root.resolve():
        raise subprocess.CalledProcessError(1, "git", stderr=b"not a repository of its own")
    commit = _git(root, "rev-parse", "HEAD").decode().strip()
    tracked = _names(_git(root, "ls-files", "-z"))
    tops = {n.split("/")[0] for n in _names(_git(root, "ls-tree", "-z", "--name-only", "HEAD"))}
    options = ("--porcelain=v1", "--untracked-files=all", "--no-renames", "--ignore-submodules=all")
    status = _names(_git(root, "status", "-z", *options))
    changed = sorted(line[3:] for line in status if not line.startswith("??"))
    others = [line[3:] for line in status if line.startswith("??")]
    note = "the committed files"
    if changed:
        more = f" and {len(changed) - 10} more" if len(changed) > 10 else ""
        note += f", but for {len(changed)} that were changed: {', '.join(changed[:10])}{more}"
    # A submodule is a folder, of which the commit says what is in it.
    return Source(
        root=root,
        files=tuple(sorted(name for name in tracked if _is_file(root / name))),
        untracked=tuple(
            n for n in sorted(others) if n.split("/")[0] in tops and _is_file(root / n)
        ),
        commit=commit,
        note=note,
    )


def _is_file(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _git(root: Path, *arguments: str) -> bytes:
    """Return what git prints, whatever a person's terminal and language are.

    Raises:
        subprocess.CalledProcessError: it fails.
        FileNotFoundError: it is not installed.
    """
    quiet = {"GIT_OPTIONAL_LOCKS": "0", "GIT_LITERAL_PATHSPECS": "1", "LC_ALL": "C"}
    done = subprocess.run(
        ["git", "-c", "core.quotePath=off", *arguments],
        cwd=root,
        env={**os.environ, **quiet},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    return done.stdout


def _names(listing: bytes) -> list[str]:
    """Return the names in what git lists with `-z`."""
    return [os.fsdecode(name) for name in listing.split(b"\0") if name]


def _walk(root: Path) -> Iterator[str]:
    for part in PARTS:
        start = root / part
        if _is_file(start):
            yield part
            continue
        for folder, folders, names in os.walk(start):
            folders[:] = sorted(n for n in folders if n not in SKIPPED and not n.startswith("."))
            for name in names:
                if not (name.startswith(".") or name.endswith(".pyc")):
                    yield (Path(folder) / name).relative_to(root).as_posix()


def state(root: Path = ROOT) -> str:
    """Return one hash over the files' names and contents and the commit."""
    found = find(root)
    total = hashlib.sha256(f"{found.commit}\n".encode())
    for name in (*found.files, *found.untracked):
        path = root / name
        content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
        total.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return total.hexdigest()
