"""Whether the archived source is what trained the runs and what images were built from."""

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lockstep import __version__, code, files
from lockstep.archive import layout
from lockstep.archive.archive_reader import Archive
from lockstep.archive.check_result import Check, guarded
from lockstep.archive.completeness import Read
from lockstep.study import Study
from lockstep.study.identity import run_code

CONTAINERS = f"{layout.SOURCE}containers/"


def other_code(study: Study, read: Read, package: Path) -> Iterator[str]:
    """Yield the runs that were trained by other code than is in a package's folder.

    Args:
        study: whose paths are names in the archive.
        read: returns the JSON of an archived file.
    """
    for run, trained in recorded_code(study, read).items():
        try:
            same = run_code(*study.framework(run), package) == trained
        except (OSError, ImportError, SyntaxError, ValueError) as error:
            yield f"{run.name}: the code cannot be read, {error}"
            continue
        if not same:
            yield run.name


def recorded_code(study: Study, read: Read) -> dict[Any, str]:
    """Return the hash of the code that trained each run, as far as records say it."""
    found = {}
    for run in study.runs:
        summary = read(f"{study.run_folder(run)}/summary.json")
        try:
            found[run] = summary["contract"]["determined_by"]["code"]
        except (KeyError, TypeError):
            continue
    return found


def same_code(package: Path, *modules: str) -> bool:
    """Whether archived modules, with all that they import and read, are those of this version."""
    if _is_this(package):
        return True
    try:
        return _beside(package) == _beside(code.PACKAGE) and (
            code.digest(*modules, package=package) == code.digest(*modules)
        )
    except (OSError, ImportError, SyntaxError, ValueError):
        return False


@functools.cache
def _is_this(package: Path) -> bool:
    """Whether a package is this one, byte by byte: then nothing has to be parsed."""
    try:
        return _beside(package, ".py") == _beside(code.PACKAGE, ".py")
    except OSError:
        return False


def _beside(package: Path, *more: str) -> dict[str, bytes]:
    """Return what a package's modules read: templates, style sheets and schemas."""
    kinds = (".j2", ".css", *more)
    paths = [path for path in package.rglob("*") if path.suffix in kinds]
    paths += (package.parent / "schemas").glob("*.schema.json")
    return {str(path.relative_to(package.parent)): path.read_bytes() for path in paths}


def stated_version(package: Path) -> str | None:
    """Return the `__version__` that archived code assigns, without executing it."""
    try:
        nodes = ast.parse((package / "__init__.py").read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return None
    for node in nodes:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if "__version__" in names:
                return str(node.value.value)
    return None


def is_this_version(package: Path, told: Mapping[str, Any], *modules: str) -> bool:
    """Whether what archived modules wrote can be made again by this version, byte by byte."""
    return told["lockstep"] == __version__ and same_code(package, *modules)


def images(hashes: Mapping[str, str], read: Read) -> Iterator[str]:
    """Yield where an image is not that of the archived definitions and locks."""
    manifests = {n: read(n) for n in hashes if n.startswith(f"{layout.DATA}images/")
                 and n.endswith("/manifest.json")}  # fmt: skip
    bases = [told["identity"] for name, told in manifests.items() if told["name"] == "base"]
    for path, told in manifests.items():
        determined = told["determined_by"]
        if "definition" not in determined:
            continue  # a finished image, of which nobody knows what it was built from
        if told["identity"] != files.digest(determined):
            yield f"{path}: its identity is not the hash of determined_by"
        name, cuda = told["name"], told.get("cuda_generation")
        built_from = {f"{name}.def": determined["definition"], **determined["steps"]}
        built_from[f"locks/{f'{cuda}-{name}' if cuda else name}.txt"] = determined["python"]
        debian = "torch" if name == "torch" else "base"
        built_from[f"locks/debian-{debian}.txt"] = determined["debian"]
        for file, sha256 in built_from.items():
            if hashes.get(CONTAINERS + file) != sha256:
                yield f"{CONTAINERS}{file}: is not what image {name} was built from ({path})"
        if isinstance(determined["parent"], str) and bases and determined["parent"] not in bases:
            yield f"{path}: was not built from the base image that is described"


def check(archive: Archive, study: Study, package: Path) -> Check:
    """Is what trained the runs what is archived, and are images built from what is archived?

    Args:
        package: the archived code, extracted.
    """
    where = layout.PACKAGE.rstrip("/")
    wrong = []
    stated = stated_version(package)
    if stated != archive.about["lockstep"]:
        told = archive.about["lockstep"]
        wrong.append(f"{layout.ABOUT}: says version {told}, {where}/__init__.py says {stated}")
    wrong += [f"{where}: is not the code that trained {name}"
              for name in other_code(study, archive.json_of, package)]  # fmt: skip
    wrong += guarded(CONTAINERS, images, archive.hashes, archive.json_of)
    runs = len(recorded_code(study, archive.json_of))
    says = f"the archived code is what trained {runs} runs; {archive.about['source']['note']}"
    return Check(name="source", says=says, wrong=wrong, skipped=not runs and not wrong)
