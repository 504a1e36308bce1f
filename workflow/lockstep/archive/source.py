"""The workflow's own source: the files as they were used, and how they differ from the commit."""

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lockstep.archive import git

ROOT = Path(__file__).resolve().parents[3]

PARTS = (
    "Snakefile", "workflow", "profiles", "containers", "config.yaml", "demo", "requirements",
    "Makefile", "README.md", "CITATION.cff", "pyproject.toml", "docs", "slurm",
)  # fmt: skip
"""What a copy without git is known to consist of."""

PRIVATE = re.compile(
    r"\.env(\..*)?|.*\.(pem|key|p12|pfx)|id_(rsa|dsa|ecdsa|ed25519).*|\.(net|pypi|npm)rc",
    re.I,
)
"""Names of files that hold keys and passwords: they go in only where git has them committed."""

SKIPPED = {"__pycache__", ".snakemake", ".venv", "results", "data"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """The source of a study's workflow.

    Attributes:
        root: the checkout.
        files: below it, sorted; links are not followed.
        commit: None without git.
        difference: from the commit to `files`, as `git diff` writes it; empty for a clean tree.
        note: what is to be known, for people.
    """

    root: Path
    files: tuple[str, ...]
    commit: str | None
    difference: bytes
    note: str

    @property
    def about(self) -> dict[str, str | None]:
        """What the manifest says of it."""
        return {"commit": self.commit, "note": self.note}


def find(root: Path = ROOT) -> Source:
    """Return the source in a checkout, or in a copy that git knows nothing of."""
    problem = None
    try:
        return _by_git(root)
    except FileNotFoundError:
        problem = "git is not installed"
    except subprocess.CalledProcessError as error:
        problem = (error.stderr.decode(errors="replace").strip().splitlines() or ["git failed"])[0]
    return Source(
        root=root,
        files=tuple(sorted(_walk(root))),
        commit=None,
        difference=b"",
        note=f"the files as they were; which commit they are is not known ({_short(problem)})",
    )


def _by_git(root: Path) -> Source:
    top = Path(os.fsdecode(git.run(root, "rev-parse", "--show-toplevel")).strip())
    if top.resolve() != root.resolve():
        raise subprocess.CalledProcessError(1, "git", stderr=b"not a repository of its own")
    commit = git.run(root, "rev-parse", "HEAD").decode().strip()
    tracked = git.names(git.run(root, "ls-tree", "-r", "-z", "--name-only", "HEAD"))
    tops = sorted({name.split("/")[0] for name in tracked})
    with tempfile.TemporaryDirectory() as scratch:
        # An index and objects of our own: the person's are not touched.
        objects = os.fsdecode(git.run(root, "rev-parse", "--git-path", "objects")).strip()
        own = {
            "GIT_INDEX_FILE": f"{scratch}/index",
            "GIT_OBJECT_DIRECTORY": f"{scratch}/objects",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str((root / objects).resolve()),
        }
        Path(scratch, "objects").mkdir()
        git.run(root, "read-tree", "HEAD", **own)
        there = [name for name in tops if os.path.lexists(root / name)]
        git.run(root, "add", "--all", "--", *there, **own)
        listed = git.names(git.run(root, "ls-files", "-z", **own))
        gone = [name for name in listed if not os.path.lexists(root / name)]
        private = sorted({*filter(_private, listed)} - {*tracked, *gone})
        gone += private
        if gone:
            git.run(root, "rm", "--cached", "--quiet", "-r", "--", *gone, **own)
        difference = git.difference(root, **own)
    # What is neither is a submodule, of which the commit is in the difference.
    there = [n for n in listed if (root / n).is_symlink() or (root / n).is_file()]
    found = tuple(sorted({*there} - {*private}))
    note = "the committed files"
    if difference:
        note += ", with uncommitted changes (source.diff)"
    if private:
        note += (
            f"; left out, as keys are called so: {', '.join(Path(name).name for name in private)}"
        )
    return Source(root=root, files=found, commit=commit, difference=difference, note=note)


def _walk(root: Path) -> Iterator[str]:
    for part in PARTS:
        start = root / part
        if start.is_file() or start.is_symlink():
            yield part
            continue
        for folder, folders, names in os.walk(start):
            folders[:] = sorted(
                name for name in folders if name not in SKIPPED and not name.startswith(".")
            )
            for name in names:
                if not (name.startswith(".") or name.endswith(".pyc") or _private(name)):
                    yield (Path(folder) / name).relative_to(root).as_posix()


def _private(name: str) -> bool:
    return PRIVATE.fullmatch(Path(name).name) is not None


def _short(text: str) -> str:
    """Without the paths that git puts into its complaints."""
    return " ".join(word for word in text.split() if "/" not in word)[:120]


def state(root: Path = ROOT) -> str:
    """Return one hash over the files' names and contents and the commit."""
    found = find(root)
    total = hashlib.sha256(f"{found.commit}\n".encode())
    for name in found.files:
        path = root / name
        content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
        total.update(f"{name}\0{hashlib.sha256(content).hexdigest()}\n".encode())
    return total.hexdigest()
