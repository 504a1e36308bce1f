"""A study's config as archives have it: its optional parts, and its form for another machine."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lockstep.archive.findings import printable
from lockstep.errors import UserError
from lockstep.study import Study, config

INCLUDE = {"images": False, "data": False, "checkpoints": False, "traces": True}
"""For a study.json that is older than the config's `archive` section."""

MOST_RUNS = 100_000  # of a study that is believed; a real one has some hundreds


def include(study: Study) -> dict[str, bool]:
    """Return what the config says of an archive's optional parts."""
    return {**INCLUDE, **study.config.get("archive", {}).get("include", {})}


def reproducible(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config that runs on another machine: without places that only this one has."""
    changed = json.loads(json.dumps(told))
    changed["paths"] = {"results": "results", "data": "data"}
    for entry in changed["datasets"].values():
        entry["raw"] = None
    machine = ("cache", "build_folder", "ca_bundle", "package_index", "debian_mirror")
    changed["images"].update(dict.fromkeys(machine))
    changed["images"]["ready"] = dict.fromkeys(changed["images"]["ready"])
    return changed


def study_in(folder: Path, name: str) -> Study:
    """Return the study that was extracted below a folder.

    Raises:
        UserError: its config is not one that this version reads.
    """
    root = folder / "results" / name
    try:
        told = json.loads((root / "study.json").read_bytes())
        config.check_complete(told)
        _check_size(told)
        study = Study.at(root)
        study.data = folder / "data"
        found = study.name, len(study.runs), study.traces(), len(study.blocks)
    except (UserError, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            "study.json is not the config of a study that this version of Lockstep reads: "
            f"{printable(str(error)[:200])} (its source is in the archive: use that version)"
        ) from error
    if found[0] != name:
        raise UserError(f"study.json is of study {found[0]!r}, the manifest of {name!r}")
    return study


def _check_size(told: Mapping[str, Any]) -> None:
    """Refuse lists that are short to write and whose product fills the memory."""
    runs = math.prod(len(told[key]) for key in ("workloads", "variants", "scales", "seeds"))
    if runs > MOST_RUNS:
        raise UserError(f"it asks for {runs} runs, more than the {MOST_RUNS} that are believed")
