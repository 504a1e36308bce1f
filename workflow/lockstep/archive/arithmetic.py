"""Whether a run's tables and its summary follow from its steps, as training made them."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.archive import differences
from lockstep.report.soundness import FAILED, read_columns
from lockstep.report.windows import steady

Arrays = Mapping[str, np.ndarray]

FORMULA = "3 x forward FLOPs of an example x examples (backward counted as two forwards)"
"""Of `lockstep.training.records`, which needs what verifying can do without."""


def windows(folder: Path, stored: Arrays, summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield where ``windows.csv`` is not that of the steps, or the summary not that of it.

    Args:
        stored: `loss`, of every step.
    """
    rows = read_columns((folder / "windows.csv").read_bytes(), "windows.csv")
    begun = (summary.get("resumed_from") or {"step": 0})["step"]  # what another run had made
    loss = stored["loss"][begun:]
    edges = np.cumsum(rows["steps"]) if rows else np.zeros(0)
    whole = rows and (rows["steps"] >= 1).all() and edges[-1] == len(loss)
    if not whole or not np.array_equal(rows["step"] - begun, edges - rows["steps"]):
        if rows or len(loss):
            yield "windows.csv: its windows are not the steps of steps.npz"
        return
    parts = np.split(loss, edges[:-1].astype(int))
    yield from _equal("windows.csv: loss", [part.mean() for part in parts], rows["loss"])
    computed = steady(rows, summary["contract"]["recipe"]["global_batch"])
    said = summary["steady"]
    if computed is None:
        computed = {"absent": said.get("absent")}
    yield from differences.between(computed, said, "summary.json: steady.")
    total, told = float(rows["seconds"].sum()), summary["seconds"]["training"]
    # The window in which a run failed is no row, but took its time.
    if not math.isclose(total, told, rel_tol=differences.RELATIVE) and not (
        summary["status"] == FAILED and told > total
    ):
        yield f"windows.csv: its seconds are {total}, summary.json says {told}"


def epochs(folder: Path, stored: Arrays) -> Iterator[str]:
    """Yield where ``epochs.csv`` is not that of the steps.

    Args:
        stored: `loss` and `count` (of examples), of every step.
    """
    rows = read_columns((folder / "epochs.csv").read_bytes(), "epochs.csv")
    if not rows:
        return
    edges = rows["step"].astype(int)
    if (np.diff(edges, prepend=0) < 1).any() or edges[-1] > len(stored["loss"]):
        yield "epochs.csv: its epochs are not the steps of steps.npz"
        return
    parts = [np.split(stored[name], edges)[: len(edges)] for name in ("loss", "count")]
    means = [math.fsum(loss * count) / int(count.sum()) for loss, count in zip(*parts)]
    yield from _equal("epochs.csv: train_loss", means, rows["train_loss"])


def flops(stored: Arrays, summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield where the operations of a run are not those of its examples.

    Args:
        stored: `count` (of examples), of every step.
    """
    said = summary.get("flops")
    if said is None:
        return
    if said["formula"] != FORMULA:
        yield "summary.json: flops.formula is not the one that records are made by"
        return
    begun = (summary.get("resumed_from") or {"step": 0})["step"]
    total = 3 * said["forward_per_example"] * int(stored["count"][begun:].sum())
    if said["total"] != total:
        yield f"summary.json: flops.total is {said['total']}, its formula gives {total}"


def _equal(what: str, computed: list[float], said: np.ndarray) -> Iterator[str]:
    same = np.isclose(computed, said, rtol=differences.RELATIVE, atol=0.0, equal_nan=True)
    if not same.all():
        row = int(np.argmin(same))
        yield f"{what} in row {row} is {said[row]}, the steps give {computed[row]}"
