"""The workflow's own source: what git tracks, as it is on the disk. And of an archive: whether its
source is what trained its runs.
"""

import functools
import hashlib
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lockstep import code, files
from lockstep.archive import layout
from lockstep.archive.archive_reader import Archive
from lockstep.archive.layout import Read
from lockstep.archive.verify import Check, guarded
from lockstep.study import Study
from lockstep.study.identity import run_code

ROOT = Path(__file__).resolve().parents[3]

PARTS = (
    "Snakefile", "workflow", "profiles", "containers", "config.yaml", "demo", "requirements",
    "Makefile", "README.md", "LICENSE", "CITATION.cff", "pyproject.toml", "docs", "slurm",
)  # fmt: skip
"""What a copy without git is known to consist of."""

SKIPPED = {"__pycache__", ".snakemake", ".venv", "results", "data"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """The source of a study's workflow."""

    root: Path  # the checkout
    files: tuple[str, ...]  # below it, sorted; links are not followed
    untracked: tuple[str, ...]  # files in the same folders that git neither tracks nor ignores
    commit: str | None  # None without git
    note: str  # how `files` differ from the commit, for people

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
    others = _names(_git(root, "ls-files", "-z", "--others", "--exclude-standard"))
    options = ("--name-only", "--no-renames", "--ignore-submodules=all")
    changed = _names(_git(root, "diff", "-z", *options, "HEAD"))
    note = "the committed files"
    if changed:
        more = f" and {len(changed) - 10} more" if len(changed) > 10 else ""
        note += f", but for {len(changed)} that were changed: {', '.join(changed[:10])}{more}"
    tops = {name.split("/")[0] for name in tracked}
    return Source(
        root=root,
        # A submodule is a folder, of which the commit says what is in it.
        files=tuple(name for name in tracked if _is_file(root / name)),
        untracked=tuple(n for n in others if n.split("/")[0] in tops and _is_file(root / n)),
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
    done = subprocess.run(
        ["git", *arguments],
        cwd=root,
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
    )
    return done.stdout


def _names(listing: bytes) -> list[str]:
    """Return the names in what git lists with `-z`, sorted."""
    return sorted(os.fsdecode(name) for name in listing.split(b"\0") if name)


def _walk(root: Path) -> Iterator[str]:
    for part in PARTS:
        start = root / part
        for path in (start, *(() if start.is_symlink() else start.rglob("*"))):
            name = path.relative_to(root)
            hidden = any(part in SKIPPED or part.startswith(".") for part in name.parts)
            if _is_file(path) and not hidden:
                yield name.as_posix()


def hashes(root: Path, names: Iterable[str]) -> dict[str, str]:
    """Return the sha256 of files in a folder, by name; of a link, that of where it leads."""
    found = {}
    for name in names:
        path = root / name
        content = os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
        found[name] = hashlib.sha256(content).hexdigest()
    return found


def state(root: Path = ROOT) -> str:
    """Return one hash over the files' names and contents and the commit."""
    found = find(root)
    return files.digest([found.commit, hashes(root, (*found.files, *found.untracked))])


# Of an archive --------------------------------------------------------------------------------

CONTAINERS = f"{layout.SOURCE}containers/"
UNREADABLE = (OSError, ImportError, SyntaxError, ValueError)
"""What code that is none raises when it is parsed."""


def check(archive: Archive, study: Study, package: Path) -> Check:
    """Is what trained the runs what is archived, and are images built from what is archived?

    Args:
        package: the archived code, extracted.
    """
    where, trained = layout.PACKAGE.rstrip("/"), trained_by(study, archive.json_of, package)
    wrong = [f"{where}: is not the code that trained {text}" for text in trained.values() if text]
    wrong += guarded(CONTAINERS, images, archive.hashes, archive.json_of)
    note = archive.about["source"]["note"]
    says = f"the archived code is what trained {len(trained)} runs; {note}"
    return Check(name="source", says=says, wrong=wrong, skipped=not trained and not wrong)


def trained_by(study: Study, read: Read, package: Path) -> dict[str, str | None]:
    """Return which runs were trained by the code in a package's folder.

    Args:
        study: whose paths are names in the archive.
        read: returns the JSON of an archived file.

    Returns:
        None by the name of each run that was; the name, and why nobody can tell, by that of each
        that was not. A run is left out if its record does not say it.
    """
    found: dict[str, str | None] = {}
    for run in study.runs:
        summary = read(f"{study.run_folder(run)}/summary.json")
        try:
            trained = summary["contract"]["determined_by"]["code"]
            same = run_code(*study.framework(run), package) == trained
            found[run.name] = None if same else run.name
        except (KeyError, TypeError):
            continue
        except UNREADABLE as error:
            found[run.name] = f"{run.name}: the code cannot be read, {error}"
    return found


def images(hashes: Mapping[str, str], read: Read) -> Iterator[str]:
    """Yield the definitions, locks and steps that are not those an image was built from."""
    for folder, told in layout.manifests(hashes, read).items():
        determined, name = told.get("determined_by"), told["name"]
        if not determined or "definition" not in determined:
            continue  # a dataset, or a finished image, of which nobody knows how it was built
        built_from = {f"{name}.def": determined["definition"], **determined["steps"]}
        cuda = told.get("cuda_generation")
        built_from[f"locks/{f'{cuda}-{name}' if cuda else name}.txt"] = determined["python"]
        debian = "torch" if name == "torch" else "base"
        built_from[f"locks/debian-{debian}.txt"] = determined["debian"]
        for file, sha256 in built_from.items():
            if hashes.get(CONTAINERS + file) != sha256:
                yield f"{CONTAINERS}{file}: is not what image {name} was built from ({folder})"


def same_code(package: Path, *modules: str) -> bool:
    """Whether archived modules, with all that they import and read, are those of this version: what
    they wrote can then be made again, byte by byte.
    """
    try:
        if _files(package, ".py") == _files(code.PACKAGE, ".py"):
            return True  # then nothing has to be parsed
        return _files(package) == _files(code.PACKAGE) and (
            code.digest(*modules, package=package) == code.digest(*modules)
        )
    except UNREADABLE:
        return False


@functools.lru_cache(maxsize=4)
def _files(package: Path, *more: str) -> dict[str, bytes]:
    """Return what a package's modules read, by name: its version, templates, styles and schemas."""
    paths = [package / "__init__.py"]
    paths += [path for path in package.rglob("*") if path.suffix in (".j2", ".css", *more)]
    paths += (package.parent / "schemas").glob("*.schema.json")
    return {str(path.relative_to(package.parent)): path.read_bytes() for path in paths}
