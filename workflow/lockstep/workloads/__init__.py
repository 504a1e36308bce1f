"""Workloads: one folder each, found by its name, or a folder anywhere, found by its path.

A folder outside of this package becomes the package ``lockstep.workloads.NAME``, where NAME is the
folder's own, so that its files are written, imported, hashed and archived as if it lay here.
"""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockstep import code
from lockstep.errors import UserError, importing, nearest

if TYPE_CHECKING:  # it needs NumPy, which is not needed to name a workload
    from lockstep.workloads.contract import Workload

HERE = Path(__file__).parent
FILES = ("spec.py", "torch_model.py", "flax_model.py")


def names() -> list[str]:
    """Return the names of all workloads of this package, sorted."""
    return sorted(path.parent.name for path in HERE.glob("*/spec.py"))


def is_path(kind: str) -> bool:
    """Whether a config's `workload` is a folder's path and not a name."""
    return "/" in kind


def settle(entry: Mapping[str, Any]) -> None:
    """Make the folder of a complete entry of a config known in this process, if it has one.

    Where that folder is not there any more, as in an archive, it lies in this package.
    """
    folder = entry.get("folder")
    if folder and Path(folder).is_dir():
        adopt(Path(folder), where="workload")


def of(entry: Mapping[str, Any]) -> "Workload":
    """Return the workload of a complete entry of a config."""
    settle(entry)
    return spec(entry["workload"])


def spec(name: str, *, where: str = "workload") -> "Workload":
    """Return a workload's framework-free description.

    Args:
        name: of the workload, which `adopt` has made known if it lies elsewhere.
        where: that stands, for messages.

    Raises:
        UserError: there is no workload of this name, or its spec.py, which lies elsewhere, fails.
    """
    folder = code.elsewhere(f"lockstep.workloads.{name}")
    if folder is None and name not in names():
        raise UserError(f"{where}: unknown workload {name!r}; {nearest(name, names())}")
    if folder is not None:
        _make_package(f"lockstep.workloads.{name}", folder)
    with importing(folder / "spec.py", where) if folder else contextlib.nullcontext():
        found = importlib.import_module(f"lockstep.workloads.{name}.spec").WORKLOAD
    if found.name != name:
        raise UserError(f"{where}: the spec.py of {name} says name={found.name!r}; both must agree")
    return found


def adopt(folder: Path, *, where: str) -> str:
    """Make a folder the package ``lockstep.workloads.NAME``; returns the name.

    Raises:
        UserError: it is no workload's folder, or its name is taken.
    """
    folder = folder.resolve()
    name, package = folder.name, f"lockstep.workloads.{folder.name}"
    known = code.elsewhere(package)
    if known == folder:
        return name
    if not name.isidentifier():
        raise UserError(f"{where}: {folder} has a name that no module can have; rename it")
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing:
        raise UserError(f"{where}: {folder} has no {missing[0]}; a workload is a folder with "
                        f"{', '.join(FILES)}")  # fmt: skip
    if known is not None or (HERE / name).exists():
        other = known or HERE / name
        raise UserError(f"{where}: {folder} has the name of {other}; rename one of them")
    code.place(package, folder)
    _make_package(package, folder)
    return name


def _make_package(package: str, folder: Path) -> None:
    """Make a folder a package of this name, unless it is one."""
    if package in sys.modules:
        return
    origin = folder / "__init__.py"
    if origin.is_file():
        found = importlib.util.spec_from_file_location(
            package, origin, submodule_search_locations=[str(folder)]
        )
    else:
        found = importlib.util.spec_from_loader(package, None, is_package=True)
    assert found is not None
    found.submodule_search_locations = [str(folder)]
    sys.modules[package] = module = importlib.util.module_from_spec(found)
    setattr(sys.modules[__name__], folder.name, module)  # as an import would
    if found.loader is not None:
        found.loader.exec_module(module)
