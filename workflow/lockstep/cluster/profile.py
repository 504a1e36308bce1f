"""The site's part of what jobs are submitted with: profiles/slurm/profile.yaml."""

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
        request.Site.of(resources(profile, rule))


def named(entries: Iterable[str] | Mapping[str, Any]) -> dict[str, str]:
    """Return resources by name, of ``NAME=VALUE`` or of the mapping that a profile may be, too."""
    if isinstance(entries, Mapping):
        return {name: str(value) for name, value in entries.items()}
    pairs = (str(entry).partition("=") for entry in entries)
    return {name: value for name, _, value in pairs}
