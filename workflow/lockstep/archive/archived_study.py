"""A study's config as archives have it: its optional parts, and its form for another machine."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lockstep.archive import layout
from lockstep.archive.archive_reader import Archive
from lockstep.archive.check_result import printable
from lockstep.errors import UserError
from lockstep.study import Study, config

INCLUDE = {
    "images": False, "data": False, "checkpoints": False, "traces": True, "untracked": False,
}  # fmt: skip
"""For a config that is older than one of these keys."""

MOST_RUNS = 100_000  # of a study that is read; a real one has some hundreds


def include(section: Mapping[str, Any]) -> dict[str, bool]:
    """Return what a config says of an archive's optional parts."""
    return {**INCLUDE, **section.get("archive", {}).get("include", {})}


def reproducible(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config that runs on another machine: without places that only this one has."""
    changed: dict[str, Any] = json.loads(json.dumps(section))
    changed["paths"] = {"results": "results", "data": "data"}
    for entry in changed["datasets"].values():
        entry["raw"] = None
    machine = ("cache", "build_folder", "ca_bundle", "package_index", "debian_mirror")
    changed["images"].update(dict.fromkeys(machine))
    changed["images"]["ready"] = dict.fromkeys(changed["images"]["ready"])
    return changed


def named_as_archived(section: Mapping[str, Any]) -> Study:
    """Return a study whose paths are the names of its files in an archive."""
    return Study(reproducible(section))


def of(archive: Archive) -> Study:
    """Return the archived study as it was run; its paths are names in the archive.

    Raises:
        UserError: its config is missing, or is not one that this version reads.
    """
    name = f"{layout.RESULTS}{archive.study}/study.json"
    try:
        section = archive.json_of(name)
        config.check_complete(section)
        lists = (section[key] for key in ("workloads", "variants", "scales", "seeds"))
        runs = math.prod(map(len, lists))
        if runs > MOST_RUNS:
            raise UserError(f"it asks for {runs} runs, more than the {MOST_RUNS} that are read")
        study = Study(section)
        study.root, study.data = Path(layout.RESULTS) / archive.study, Path("data")
        found = study.name, len(study.runs), study.traces(), len(study.blocks)
    except (UserError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{archive.path}: {name} is not the config of a study that this version of Lockstep "
            f"reads: {printable(str(error)[:200])} (use the version that is in its source/)"
        ) from error
    if found[0] != archive.study:
        raise UserError(f"{archive.path}: {name} is of study {found[0]!r}")
    return study
