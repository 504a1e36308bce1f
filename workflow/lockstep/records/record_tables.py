"""The tables and arrays of a run: read without trusting them, and compared with each other.

And what windows.csv says of time: which windows count, the steady state, the first windows, drift.
"""

import csv
import io
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from lockstep.datasets import checksum
from lockstep.training import contention
from lockstep.training.rates import FLOPS_FORMULA, steady

Columns = Mapping[str, np.ndarray]

TABLES = {
    "epochs.csv": {
        "epoch": "count", "step": "count",
        "train_loss": "any", "test_loss": "any", "training_seconds": "any",
    },
    "windows.csv": {
        "step": "count", "steps": "count", "seconds": "count", "data_seconds": "count",
        "warm_up": "count", "examples": "optional", "weight": "optional",
        "run_delay_seconds": "optional", "involuntary_switches": "optional",
        "foreign_cpu_share": "optional",
    },
}  # fmt: skip
"""The columns that are read: `count` is finite and not negative, `any` may be anything, `optional`
may be missing, or empty in a row, and is like `count` otherwise. Further columns are allowed, and
may be empty as well.
"""

EXACT = 1e-9
"""Relative: between what is computed again and what is written, other builds of NumPy round."""

UNFOLDED, SPARE = 64, 1 << 20
"""An array file may take so many times its own size in memory, and so many bytes more."""


class Unsound(Exception):
    """A record that cannot be used; the message names the file and says why."""


def read_columns(content: bytes, name: str) -> dict[str, np.ndarray]:
    """Return a table's columns as float64; an empty file has none.

    Raises:
        Unsound: it is not a table of numbers, or a column is missing or holds impossible values.
    """
    kinds = TABLES[name]
    try:
        rows = list(csv.reader(content.decode().splitlines()))
        if not rows:
            return {}
        if not content.endswith(b"\n") or any(len(row) != len(rows[0]) for row in rows):
            raise Unsound(f"{name} is truncated")
        wanted = [name for name, kind in kinds.items() if kind != "optional"]
        empty = [k for k, column in enumerate(rows[0]) if column not in wanted]
        for row in rows[1:]:
            for k in empty:
                row[k] = row[k] or "nan"
        values = np.array(rows[1:], dtype=np.float64).reshape(len(rows) - 1, len(rows[0]))
    except (ValueError, csv.Error) as error:
        raise Unsound(f"{name} is not a table of numbers ({error})") from error
    columns = dict(zip(rows[0], values.T, strict=True))
    for column, kind in kinds.items():
        if kind == "optional" and column not in columns:
            continue
        if column not in columns:
            raise Unsound(f"{name} has no column {column!r}")
        given = columns[column]
        given = given[~np.isnan(given)] if kind == "optional" else given
        if kind != "any" and not ((given >= 0).all() and np.isfinite(given).all()):
            raise Unsound(f"{name} has a value in {column!r} that cannot be")
    if "steps" in columns and not (columns["steps"] >= 1).all():
        raise Unsound(f"{name} has a window without steps")
    return columns


def read_arrays(content: bytes, name: str) -> dict[str, np.ndarray]:
    """Return the arrays of an NPZ file, without unpickling and only if they stay small in memory.

    Raises:
        Unsound: it is damaged, holds objects, or would unfold to much more than its size.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            size = sum(info.file_size for info in stored.zip.infolist())
            if size > UNFOLDED * len(content) + SPARE:
                raise Unsound(f"{name} would unfold to {size} bytes; it was not opened")
            return dict(stored)
    except Unsound:
        raise
    except Exception as error:  # a damaged file raises almost anything
        raise Unsound(f"{name} is not readable ({error})") from error


def read_steps(content: bytes, summary: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return `loss`, `checksum`, `count` and `weight` of every step, each ``(steps,)``.

    Older records have no weight: there every example was one loss unit.

    Raises:
        Unsound: ``steps.npz`` is not readable, or is not of this summary.
    """
    name, steps = "steps.npz", read_arrays(content, "steps.npz")
    if "weight" not in steps and "count" in steps:
        steps["weight"] = steps["count"]
    for key, kind in (("loss", "f"), ("checksum", "u"), ("count", "iu"), ("weight", "iu")):
        if key not in steps or steps[key].dtype.kind not in kind:
            raise Unsound(f"{name} has no sound array {key!r}")
        if steps[key].shape != (summary["steps"],):
            raise Unsound(f"{name} holds {steps[key].size} of {summary['steps']} steps in {key!r}")
    if checksum.chain(steps["checksum"]) != summary["batches"]:
        raise Unsound(f"{name}: its batches are not those of summary.json")
    return steps


def from_steps(
    steps: Columns, summary: Mapping[str, Any], epochs: Columns, windows: Columns
) -> Iterator[str]:
    """Yield where the tables and the count of operations do not follow from the steps.

    Args:
        steps: as `read_steps` returns them.
        epochs, windows: as `read_columns` returns them; empty without a row.
    """
    begun = (summary.get("resumed_from") or {"step": 0})["step"]  # what another run had made
    loss = steps["loss"][begun:]
    if windows:
        edges = np.cumsum(windows["steps"]).astype(int)
        starts = windows["step"] - begun
        if edges[-1] != len(loss) or not np.array_equal(starts, edges - windows["steps"]):
            yield "windows.csv: its windows are not the steps of steps.npz"
        else:
            means = [part.mean() for part in np.split(loss, edges[:-1])]
            yield from _equal("windows.csv", "loss", means, windows)
    elif len(loss):
        yield "windows.csv: has no row, but steps.npz holds steps"
    if epochs and len(epochs["step"]):
        edges = epochs["step"].astype(int)
        if (np.diff(edges, prepend=0) < 1).any() or edges[-1] > len(steps["loss"]):
            yield "epochs.csv: its epochs are not the steps of steps.npz"
        else:
            parts = [np.split(steps[name], edges)[: len(edges)] for name in ("loss", "weight")]
            means = [math.fsum(a * n) / int(n.sum()) for a, n in zip(*parts, strict=True)]
            yield from _equal("epochs.csv", "train_loss", means, epochs)
    flops = summary.get("flops") or {}
    if flops.get("formula") == FLOPS_FORMULA:
        total = 3 * flops["forward_per_example"] * int(steps["count"][begun:].sum())
        if flops["total"] != total:
            yield f"summary.json: flops.total is {flops['total']}, its formula gives {total}"
    elif "formula" in flops:
        yield "summary.json: flops.formula is not the one that records are made by"


def _equal(name: str, column: str, computed: list[float], table: Columns) -> Iterator[str]:
    """Yield the first row in which a column is not what the steps give."""
    if column not in table:
        yield f"{name}: has no column {column!r}"
        return
    same = np.isclose(computed, table[column], rtol=EXACT, atol=0.0, equal_nan=True)
    if not same.all():
        row = int(np.argmin(same))
        written = table[column][row]
        yield f"{name}: {column} in row {row} is {written}, the steps give {computed[row]}"


# What windows say of time ---------------------------------------------------------------------


def cpus(summary: Mapping[str, Any]) -> int:
    """Return the CPUs of a process, as a run's summary has it; 1 in records without it."""
    watched = summary.get("contention")
    known = watched.get("cpus") if isinstance(watched, Mapping) else None
    return known if isinstance(known, int) and known > 0 else 1


def digest(windows: Columns, summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the report wants of a run's windows; empty if there is none.

    Returns:
        `steady`: see `lockstep.training.rates.steady`.
        `timed`, `undisturbed`: how many windows there are but for the first of each start, and how
        many of them count; `enough`: whether that is enough for a step time.
        `first_seconds`: the first windows of all starts, without waiting for data.
        `at`, `seconds_per_step`: first step and step time of the timed windows, ``(timed,)``.
        `drift`: median step time of the last third of the windows that count over that of the first
        third, less 1; absent below nine windows. Thirds and medians, so that single slow windows
        do not look like a trend.
    """
    if not windows:
        return {}
    warm, counted = windows["warm_up"] > 0, contention.counts(windows, cpus(summary))
    batch = summary["contract"]["recipe"]["global_batch"]
    timed, undisturbed = int((~warm).sum()), int(counted.sum())
    per_step = windows["seconds"] / windows["steps"]
    found: dict[str, Any] = {
        "steady": steady(windows, batch, counted),
        "timed": timed,
        "undisturbed": undisturbed,
        "enough": undisturbed == timed or contention.enough(undisturbed, timed),
        "first_seconds": float((windows["seconds"] - windows["data_seconds"])[warm].sum()),
        "at": windows["step"][~warm].astype(np.int32),
        "seconds_per_step": per_step[~warm].astype(np.float32),
    }
    kept, third = per_step[counted], undisturbed // 3
    if third >= 3:
        found["drift"] = float(np.median(kept[-third:]) / np.median(kept[:third]) - 1)
    return found
