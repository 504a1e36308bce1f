"""Losses of a run's steps, from ``steps.npz``, if the file is whole and the run's own."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.datasets import checksum
from lockstep.report.record_validation import Unsound


def losses(folder: Path, summary: Mapping[str, Any], sha256: str | None = None) -> np.ndarray:
    """Return the loss of every step of a run, ``(steps,)``.

    Args:
        sha256: of the file, if its block's manifest says it.

    Raises:
        Unsound: the file is not readable, or contradicts the run's summary or the manifest.
    """
    path = folder / "steps.npz"
    try:
        with np.load(path) as stored:
            loss, sums = stored["loss"], stored["checksum"]
    except Exception as error:  # a damaged archive raises almost anything
        raise Unsound(f"not readable ({error})") from error
    if loss.dtype.kind != "f" or sums.dtype.kind != "u":
        raise Unsound(f"holds no numbers of steps (loss is {loss.dtype}, checksum {sums.dtype})")
    if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise Unsound("was changed after its block was finished (sha256 differs)")
    if loss.shape != (summary["steps"],):
        raise Unsound(f"holds {loss.size} of {summary['steps']} steps")
    if checksum.chain(sums) != summary["batches"]:
        raise Unsound("contradictory: its batches are not those of the summary")
    return loss
