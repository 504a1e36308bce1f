"""A run's records are sealed: its summary holds their hashes, so that a changed one is noticed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lockstep import files

RECORDS = ("epochs.csv", "windows.csv", "steps.npz", "final.safetensors")


def hashes(folder: Path) -> dict[str, str]:
    """Return the sha256 (hex) of a run's records, which its summary takes as `sha256`."""
    return {name: files.sha256_file(folder / name) for name in RECORDS}


def broken(folder: Path, summary: Mapping[str, Any]) -> str | None:
    """Say which record is not as the run left it, or None if all are."""
    for name in RECORDS:
        if not (folder / name).is_file():
            return f"{name} is missing"
        if files.sha256_file(folder / name) != summary.get("sha256", {}).get(name):
            return f"{name} was changed since"
    return None
