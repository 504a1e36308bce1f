"""Whether archived code wrote a file as this version does: else a difference is no finding."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lockstep import __version__, code
from lockstep.archive import layout


def alike(module: str, manifest: Mapping[str, Any], package: Path, *beside: Path) -> bool:
    """Whether what a module writes would be the same.

    Args:
        module: its dotted name.
        manifest: of the archive, which names the version.
        package: the archived code.
        beside: files of this package that the module reads.
    """
    if manifest["lockstep"] != __version__:  # what is written names it
        return False
    try:
        same = all(
            package.joinpath(path.relative_to(code.PACKAGE)).read_bytes() == path.read_bytes()
            for path in beside
        )
    except (OSError, ValueError):
        return False
    return same and same_code(module, package)


def same_code(module: str, package: Path) -> bool:
    """Whether a module of the archived code, with all that it imports, is that of this version."""
    try:
        return code.digest(module, package=package) == code.digest(module)
    except (OSError, ImportError, SyntaxError, ValueError):
        return False


def version(manifest: Mapping[str, Any], package: Path) -> Iterator[str]:
    """Yield where the manifest names another version than the archived code states.

    The version decides what is compared: who could write any into the manifest could switch that
    off.
    """
    said, stated = manifest["lockstep"], _stated(package / "__init__.py")
    if said != stated:
        name = f"{layout.SOURCE}workflow/lockstep/__init__.py"
        yield f"{layout.MANIFEST}: names version {said}, {name} states {stated}"


def _stated(path: Path) -> str | None:
    """Return the `__version__` that a file assigns, None if it does not; executes nothing."""
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            if "__version__" in names:
                return str(node.value.value)
    return None
