"""Makes a Python that has few packages of one that has many: imported by each that is started.

Packages that are not among `LOCKSTEP_ONLY`, nor needed by those, cannot be imported. The project's
own modules may import those of `LOCKSTEP_ONLY` alone, and none that merely came with them. Which
process finds which framework is written to `LOCKSTEP_SEEN`.
"""

import builtins
import importlib.machinery
import os
import re
import sys
from importlib import metadata

WANTED = os.environ["LOCKSTEP_ONLY"].split()
FRAMEWORKS = ("torch", "jax")
OURS = ("lockstep", "benchmarks")


def canonical(name: str) -> str:
    """Return a distribution's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions() -> set[str]:
    """Return the names of what is there: what is wanted, and what that needs."""
    found: set[str] = set()
    left = list(WANTED)
    while left:
        name = canonical(left.pop())
        if name in found:
            continue
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(name)
        left += [re.match(r"[\w.-]+", need)[0] for need in needs if "extra ==" not in need]
    return found


THERE = distributions()
MODULES = {
    module: set(map(canonical, names))
    for module, names in metadata.packages_distributions().items()
}


class Few(importlib.machinery.PathFinder):
    """Finds modules as Python does, but none of a package that is not there."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        top = fullname.partition(".")[0]
        if top in MODULES and not MODULES[top] & THERE and top not in OURS:
            return None
        if fullname in FRAMEWORKS:
            with open(os.environ["LOCKSTEP_SEEN"], "a") as stream:
                stream.write(f"{os.getpid()} {fullname}\n")
        return super().find_spec(fullname, path, target)

    @classmethod
    def find_distributions(cls, *arguments):
        """Find no package's metadata either: PyTorch imports optree wherever it finds those."""
        for found in super().find_distributions(*arguments):
            if canonical(found.name) in THERE or canonical(found.name) in OURS:
                yield found


sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Few
wanted = set(map(canonical, WANTED))
ordinary = builtins.__import__


def checked(name, globals=None, locals=None, fromlist=(), level=0):
    """Import, unless a module of ours asks for what it may not have."""
    asking = (globals or {}).get("__name__", "").partition(".")[0]
    top = name.partition(".")[0]
    ours = level == 0 and asking in OURS and top in MODULES and top not in OURS
    if ours and not MODULES[top] & wanted:
        raise ModuleNotFoundError(f"{globals['__name__']} must not import {name!r}", name=name)
    return ordinary(name, globals, locals, fromlist, level)


builtins.__import__ = checked
