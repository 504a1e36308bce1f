"""Workloads: one folder each, found by its name; nothing else lists them."""

import importlib
from pathlib import Path

from lockstep.errors import UserError, nearest
from lockstep.workloads.contract import Workload


def names() -> list[str]:
    """Return the names of all workloads, sorted."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/spec.py"))


def spec(name: str, *, where: str = "workload") -> Workload:
    """Return a workload's framework-free description.

    Raises:
        UserError: there is no workload of this name.
    """
    if name not in names():
        raise UserError(f"{where}: unknown workload {name!r}; {nearest(name, names())}")
    return importlib.import_module(f"lockstep.workloads.{name}.spec").WORKLOAD
