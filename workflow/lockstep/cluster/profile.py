"""The site's part of what jobs are submitted with: profiles/slurm/profile.yaml."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lockstep.cluster import request
from lockstep.errors import UserError, nearest

PATH = Path(__file__).resolve().parents[3] / "profiles" / "slurm" / "profile.yaml"

RULES = ("preprocess", "weights", "trace", "compare_traces", "train", "report")
"""Those that SLURM runs."""


def read(path: Path = PATH) -> dict[str, Any]:
    """Return a profile; a host without YAML knows none.

    Raises:
        UserError: it is missing, is not YAML, or gives a key twice.
    """
    try:
        from lockstep.study import plain
    except ImportError:
        return {}
    return plain.read(path)


def resources(profile: Mapping[str, Any], rule: str) -> dict[str, str]:
    """Return the resources that a rule's jobs get: those of all rules, and its own over them."""
    own = profile.get("set-resources") or ()
    if not isinstance(own, Mapping):
        given = (str(entry).partition(":") for entry in own)
        own = {rule: [resource for name, _, resource in given if name == rule]}
    return named(profile.get("default-resources") or ()) | named(own.get(rule) or ())


def check(profile: Mapping[str, Any]) -> None:
    """Check the resources of all rules, and of those that have some of their own.

    Raises:
        UserError: a rule or a resource is misspelt, or a value is wrong.
    """
    own = profile.get("set-resources") or ()
    for rule in sorted({str(entry).partition(":")[0] for entry in own}):
        if rule not in RULES:
            raise UserError(f"set-resources names the rule {rule!r}; {nearest(rule, RULES)}")
    for rule in RULES:
        site(resources(profile, rule))


def site(given: Mapping[str, Any]) -> request.Site:
    """Return what resources say of the site.

    Raises:
        UserError: one is misspelt or has a wrong value; says in which line of the profile.
    """
    try:
        return request.Site.of(given)
    except UserError as error:
        name = str(error).partition(" ")[0]
        raise UserError(f"{where(name)}: {error}") from error


def where(name: str, path: Path = PATH) -> str:
    """Return the file and the line where a resource or a setting is given, or could be."""
    pattern = re.compile(rf"\s*(#\s*)?(-\s*)?[\"']?(\w+:\s*)?{re.escape(name)}\s*[=:]")
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    found = [
        (match.group(1) is not None, number)
        for number, line in enumerate(lines, 1)
        if (match := pattern.match(line))
    ]
    place = "/".join(path.parts[-3:])
    return f"{place}:{min(found)[1]}" if found else place


def named(entries: Iterable[str] | Mapping[str, Any]) -> dict[str, str]:
    """Return resources by name, of ``NAME=VALUE`` or of the mapping that a profile may be, too."""
    if isinstance(entries, Mapping):
        return {name: str(value) for name, value in entries.items()}
    pairs = (str(entry).partition("=") for entry in entries)
    return {name: value for name, _, value in pairs}
