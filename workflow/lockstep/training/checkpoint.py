"""Checkpoints in the framework-neutral form: atomic, hashed, two kept.

A checkpoint is a folder ``step-000000123`` with

`state.safetensors`   parameters, slots and buffers (`lockstep.workloads.weights`),
`steps.npz`           loss and batch checksum of every step so far,
`progress.json`       step, trajectory, rows of the records so far, and
`manifest.json`       sha256 of each of these, written last; the folder is renamed into place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import files
from lockstep.errors import UserError
from lockstep.workloads import weights

KEPT = 2
SCHEMA = "lockstep-checkpoint/2"
FILES = ("progress.json", "state.safetensors", "steps.npz")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A run at the edge of a window.

    Attributes:
        step: steps made.
        trajectory: identity of what is trained, without framework, variant and scale.
        state: parameters, slots and buffers.
        losses: of every step so far, float64 ``(step,)``.
        checksums: of every step's batch, uint32 ``(step,)``.
        counts: real examples of every step, ``(step,)``.
        weights: their loss units, likewise.
        progress: rows of the records so far (JSON).
    """

    step: int
    trajectory: str
    state: weights.State
    losses: np.ndarray
    checksums: np.ndarray
    counts: np.ndarray
    weights: np.ndarray
    progress: dict[str, Any]


def save(
    folder: Path, checkpoint: Checkpoint, late: Callable[[], Mapping[str, Any]] = dict
) -> Path:
    """Write a checkpoint below `folder` and remove all but the newest two.

    Args:
        late: returns what more to keep of the progress, when all that takes long is on the disk:
            what a checkpoint itself has taken.
    """
    path = folder / f"step-{checkpoint.step:09d}"
    with files.atomic(path) as temporary:
        temporary.mkdir()
        weights.save(temporary / "state.safetensors", checkpoint.state)
        np.savez(
            temporary / "steps.npz",
            loss=checkpoint.losses,
            checksum=checkpoint.checksums,
            count=checkpoint.counts,
            weight=checkpoint.weights,
        )
        large = [name for name in FILES if name != "progress.json"]
        hashes = {name: files.sha256_file(temporary / name) for name in large}
        for name in large:
            files.sync_file(temporary / name)
        progress = {
            "schema": SCHEMA,
            "step": checkpoint.step,
            "trajectory": checkpoint.trajectory,
            **checkpoint.progress,
            **late(),
        }
        files.write_json(temporary / "progress.json", progress)
        hashes["progress.json"] = files.sha256_file(temporary / "progress.json")
        files.write_json(temporary / "manifest.json", hashes)
    for old in _all(folder)[:-KEPT]:
        files.remove(old)
    return path


def load(path: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        UserError: it is missing, incomplete, damaged or of another schema.
    """
    hashes = files.read_json(path / "manifest.json")
    for name in FILES:
        if not (path / name).is_file():
            raise UserError(f"{path / name}: no such file; the checkpoint is incomplete")
        if files.sha256_file(path / name) != hashes.get(name):
            raise UserError(f"{path / name}: damaged, its sha256 is not the manifest's")
    progress = files.read_json(path / "progress.json")
    if progress.pop("schema") != SCHEMA:
        raise UserError(
            f"{path}: not a {SCHEMA} checkpoint, as this version of Lockstep makes; finish the run "
            "with the version that made it, or remove the checkpoint"
        )
    with np.load(path / "steps.npz") as steps:
        return Checkpoint(
            step=progress.pop("step"),
            trajectory=progress.pop("trajectory"),
            state=weights.load(path / "state.safetensors"),
            losses=steps["loss"],
            checksums=steps["checksum"],
            counts=steps["count"],
            weights=steps["weight"],
            progress=progress,
        )


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest sound checkpoint below `folder`, and what was wrong with newer ones."""
    problems: list[str] = []
    for path in reversed(_all(folder)):
        try:
            return load(path), problems
        except UserError as error:
            problems.append(str(error))
    return None, problems


def _all(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"))
