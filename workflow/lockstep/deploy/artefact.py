"""What lies beside an exported model: what it was made with, and what it must be served with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lockstep import files, machine
from lockstep.errors import UserError

ABOUT = "artefact.json"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of packages.

    Raises:
        UserError: one is not installed.
    """
    found = machine.versions(packages)
    for package in packages:
        if package not in found:
            raise UserError(f"{package} is not installed here")
    return found


def describe(
    folder: Path, *, inputs: Sequence[str], packages: Sequence[str], bound: bool
) -> dict[str, Any]:
    """Write `ABOUT` into an artefact's folder and return it, with the size and hash of each file.

    Args:
        inputs: names of the arrays of a question.
        packages: whose versions must be the same where it is served.
        bound: whether it is native code for this CPU.
    """
    made = sorted(path for path in folder.rglob("*") if path.is_file())
    about = {
        "inputs": list(inputs),
        "versions": versions(packages),
        "instruction_set": machine.instruction_set() if bound else None,
        "files": {
            path.relative_to(folder).as_posix(): {
                "bytes": path.stat().st_size,
                "sha256": files.sha256_file(path),
            }
            for path in made
        },
    }
    files.write_json(folder / ABOUT, about)
    return about


def check(folder: Path) -> None:
    """Check that an artefact can be served here.

    Raises:
        UserError: it was made with another version or for another CPU, or is damaged.
    """
    about = files.read_json(folder / ABOUT)
    here = versions(list(about["versions"]))
    for package, version in about["versions"].items():
        if here[package] != version:
            raise UserError(
                f"the artefact was made with {package} {version}, here is {here[package]}; make it "
                "again"
            )
    if about["instruction_set"] not in (None, machine.instruction_set()):
        raise UserError("the artefact is native code for another CPU; make it again")
    for name, told in about["files"].items():
        path = folder / name
        if not path.is_file() or files.sha256_file(path) != told["sha256"]:
            raise UserError(f"{name} of the artefact is missing or was changed; make it again")
