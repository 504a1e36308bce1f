"""What a run leaves behind: tables and one summary, readable without Lockstep.

`windows.csv`   a row a window,
`epochs.csv`    a row an epoch,
`steps.npz`     of every step `loss` float64, `checksum` uint32, `count` int32 (its examples) and
                `weight` int64 (their loss units),
`summary.json`  everything else; written last, so that a run with a summary has all its records.

A field that a machine cannot give is ``{"absent": REASON}``, never zero.

A run that was begun from another run's checkpoint says so (`resumed_from`). Its losses and epochs
are then those of both, but times, windows and FLOPs its own; the time to a target is nobody's.
"""

import csv
import datetime
import io
import math
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import files, places
from lockstep.cluster import place
from lockstep.datasets import checksum
from lockstep.engines.contract import Engine, Job, Preparation
from lockstep.training import contention
from lockstep.training.loop import Progress
from lockstep.training.rates import FLOPS_FORMULA, steady
from lockstep.training.spec import RunSpec

SCHEMA = "lockstep-record/1"


def absent(reason: str) -> dict[str, str]:
    """Return what stands in a field that this machine cannot give."""
    return {"absent": reason}


def write_tables(folder: Path, progress: Progress) -> None:
    """Write the tables of a run."""
    _write_csv(folder / "windows.csv", progress.windows)
    _write_csv(folder / "epochs.csv", _epochs(progress))
    with files.atomic(folder / "steps.npz") as temporary, open(temporary, "wb") as stream:
        np.savez(
            stream,
            loss=np.concatenate([np.empty(0), *progress.losses]),
            checksum=np.concatenate([np.empty(0, np.uint32), *progress.checksums]),
            count=np.concatenate([np.empty(0, np.int64), *progress.counts]).astype(np.int32),
            weight=np.concatenate([np.empty(0, np.int64), *progress.weights]),
        )


def _epochs(progress: Progress) -> list[dict[str, Any]]:
    """Return a row an epoch; in those that another run made, this one had not yet trained."""
    begun = _begun_at(progress)
    return [
        {**row, "training_seconds": 0.0} if row["step"] <= begun else row for row in progress.epochs
    ]


def _begun_at(progress: Progress) -> int:
    """Return how many steps another run made."""
    return progress.resumed_from["step"] if progress.resumed_from else 0


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    files.write_bytes(path, text.getvalue().encode())


def summary(
    spec: RunSpec,
    job: Job,
    engine: Engine,
    preparation: Preparation,
    progress: Progress,
    *,
    status: str,
    reason: str | None,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a run's summary.

    Args:
        status: `finished` or `failed`.
        reason: why it failed.
        about: `dataset`, `weights`, `attempts`, `total_steps`, `flops`, `cold_start` and
            `contention`, as they go into the summary.
    """
    last = progress.epochs[-1] if progress.epochs else {}
    return {
        "schema": SCHEMA,
        "study": spec.study,
        "workload": spec.workload,
        "variant": spec.variant,
        "scale": spec.scale,
        "seed": spec.seed,
        "identity": spec.identity,
        "trajectory": spec.trajectory,
        "status": status,
        "reason": reason,
        "ended": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "steps": progress.step,
        "resumed_from": progress.resumed_from,
        "seconds": progress.clock.seconds,
        "cache": preparation.cache,
        "steady": _steady(progress, job, about["contention"]["cpus"]),
        "mfu": absent("the report works it out, from the peak that the config states"),
        "energy": absent("no energy counter was read"),
        "memory": {
            "max_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "device": engine.memory() or absent("the device keeps no count of allocations"),
            "planned": dict(preparation.memory) or absent("the framework does not plan memory"),
        },
        "units": {
            "weight": job.workload.weight_unit,
            **{f"test_{m.name}": vars(m) for m in job.workload.metrics},
        },
        "metrics": {k: v for k, v in last.items() if k.startswith(("train_", "test_"))},
        "target": _target(progress, job),
        "batches": checksum.chain(np.concatenate([np.empty(0, np.uint32), *progress.checksums])),
        **about,
        "contract": {
            "variant": dict(spec.settings),
            "recipe": places.without(spec.recipe),
            "determined_by": dict(spec.determined_by),
            "engine": engine.facts(),
            "topology": {
                "devices": job.topology.devices,
                "world_size": job.topology.world_size,
                "local_batch": job.local_batch,
                "threads": spec.threads,
                "window_steps": spec.window_steps,
                "processes": place.processes(job.topology),
                "environment": place.environment(),
            },
            "host": dict(spec.host),
        },
    }


def _steady(progress: Progress, job: Job, cpus: int) -> dict[str, Any]:
    """Return step time in the steady state, or why there is none."""
    if all(row["warm_up"] for row in progress.windows):
        return absent("the run had no window after its first")
    windows = contention.columns(progress.windows)
    found = steady(windows, job.recipe["global_batch"], contention.counts(windows, cpus))
    return found or absent("other work disturbed every window after the first")


def flops(progress: Progress, forward: float) -> dict[str, Any]:
    """Return the operations of a run whose examples have so many in a forward pass."""
    counts = np.concatenate([np.empty(0, np.int64), *progress.counts])
    examples = int(counts[_begun_at(progress) :].sum())
    seconds = progress.clock.seconds["training"]
    return {
        "forward_per_example": forward,
        "formula": FLOPS_FORMULA,
        "total": 3 * forward * examples,
        "per_second": 3 * forward * examples / seconds if seconds else absent("no step was made"),
    }


def _target(progress: Progress, job: Job) -> dict[str, Any]:
    """Return when the target was first met, in epochs' evaluations; null if it never was."""
    target = job.recipe["target"]
    (metric,) = [metric for metric in job.workload.metrics if metric.name == target["metric"]]
    target = {**target, "higher": metric.higher}
    column = f"test_{target['metric']}"
    for row in progress.epochs:
        ahead = row[column] - target["value"]
        if math.isfinite(ahead) and (ahead >= 0 if metric.higher else ahead <= 0):
            seconds = None if progress.resumed_from else row["training_seconds"]
            return {**target, "step": row["step"], "training_seconds": seconds}
    return {**target, "step": None, "training_seconds": None}
