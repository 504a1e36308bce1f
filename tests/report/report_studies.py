"""Writes studies with known truth: real files in the records' format, made without training."""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lockstep import places
from lockstep.datasets import checksum
from lockstep.engines.contract import types
from lockstep.records import parity_verdict
from lockstep.study import Study
from lockstep.study import config as study_config
from lockstep.study.run import Run
from lockstep.training import contention, rates

VARIANTS: dict[str, Any] = {
    "torch-eager": {"framework": "torch", "mode": "eager"},
    "torch-compile": {"framework": "torch", "mode": "compile"},
    "jax-jit": {"framework": "jax", "mode": "jit"},
}
TWO = {name: VARIANTS[name] for name in ("torch-eager", "jax-jit")}

STEP_SECONDS = {"torch-eager": 0.010, "torch-compile": 0.010, "jax-jit": 0.005}
EPOCHS, WINDOWS, STEPS = 3, 5, 10  # windows an epoch, steps a window
EPOCH = WINDOWS * STEPS
TOTAL = EPOCHS * EPOCH
CPUS = 2
TARGET = {"metric": "accuracy", "value": 0.93}

Edit = Callable[[Run, dict[str, Any]], None]


def config(
    root: Path,
    *,
    name: str = "planted",
    variants: Mapping[str, Any] = VARIANTS,
    seeds: int = 5,
    scales: tuple[str, ...] = ("1x1",),
    workloads: tuple[str, ...] = ("mnist_cnn",),
    **more: Any,
) -> dict[str, Any]:
    """Return a complete config, as the workflow would write it."""
    recipe = {"workload": "mnist_cnn", "dataset": "digits", "epochs": EPOCHS, "target": TARGET}
    raw = {
        "study": name,
        "datasets": {"digits": {"source": "digits"}},
        "workloads": {w: copy.deepcopy(recipe) for w in workloads},
        "variants": copy.deepcopy(dict(variants)),
        "scales": list(scales),
        "seeds": list(range(seeds)),
        "blocks": {"paired": True},
        "paths": {"results": str(root)},
        **more,
    }
    return study_config.complete(raw)


def write(
    root: Path,
    *,
    noise: float = 0.02,
    step_seconds: Mapping[str, float] = STEP_SECONDS,
    skip: Callable[[Run], bool] = lambda run: False,
    parity: bool = True,
    manifests: bool = True,
    rng: int = 1,
    spread: float = 0.01,
    edit: Edit | None = None,
    edit_loss: Callable[[Run, np.ndarray], np.ndarray] = lambda run, loss: loss,
    edit_epochs: Callable[[Run, list], None] = lambda run, epochs: None,
    edit_windows: Callable[[Run, list], None] = lambda run, windows: None,
    **options: Any,
) -> Study:
    """Write a finished study.

    Args:
        noise, spread: standard deviation of the log step time between runs, and windows of one.
        skip: runs that leave nothing.
        edit: changes a run's summary before it is written.
        edit_loss, edit_epochs, edit_windows: return another loss of every step, and change the rows
            of epochs and of windows, which all records then agree on.
        options: of `config`.
    """
    study = Study(config(root, **options))
    put_json(study.path, study.config)
    generator = np.random.default_rng(rng)

    def write_run(run: Run, step: float) -> None:
        folder = study.run_folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        base = np.random.default_rng(1000 + run.seed)
        sums = base.integers(0, 2**32, TOTAL, dtype=np.uint32)
        curve = 2.3 * np.exp(-3.75 * np.arange(TOTAL) / TOTAL)
        curve *= 1 + 0.02 * base.normal(size=TOTAL)
        loss = edit_loss(run, curve * (1 + 1e-6 * generator.normal(size=TOTAL)))
        windows = []
        for k, part in enumerate(np.split(loss, EPOCHS * WINDOWS)):
            seconds = step * STEPS * float(np.exp(spread * generator.normal())) + 0.3 * (k == 0)
            row = {"step": k * STEPS, "steps": STEPS, "epoch": k // WINDOWS, "seconds": seconds}
            row |= {"data_seconds": 0.0, "loss": float(part.mean()), "warm_up": int(k == 0)}
            row |= {"attempt": 0, "examples": 64 * STEPS, "run_delay_seconds": 0.001 * seconds}
            windows.append({**row, "involuntary_switches": 1, "foreign_cpu_share": 0.0})
        edit_windows(run, windows)
        for row in windows:
            row["data_seconds"] = 0.01 * row["seconds"]
        elapsed = np.cumsum([w["seconds"] for w in windows])
        epochs = [
            {
                "epoch": e,
                "step": (e + 1) * EPOCH,
                "train_loss": float(part.mean()),
                "test_loss": float(part.mean() * 1.1),
                "test_accuracy": 0.9 + 0.03 * e + float(base.integers(-2, 3)) / 1000,
                "training_seconds": float(elapsed[(e + 1) * WINDOWS - 1]),
            }
            for e, part in enumerate(np.split(loss, EPOCHS))
        ]
        edit_epochs(run, epochs)
        summary = run_summary(study, run, windows, epochs, checksum.chain(sums))
        if edit:
            before = dict(summary["target"])
            edit(run, summary)
            if summary["batches"] != checksum.chain(sums):  # other batches, as all records then say
                sums = sums ^ np.uint32(1)
                summary["batches"] = checksum.chain(sums)
            epochs[-1] |= {k: v for k, v in summary["metrics"].items() if k in epochs[-1]}
            if summary["target"] == before:  # the last epoch may be the one that met it
                summary["target"] = met(before, epochs)
        put_csv(folder / "windows.csv", windows)
        put_csv(folder / "epochs.csv", epochs)
        np.savez(folder / "steps.npz", loss=loss, checksum=sums, count=np.full(TOTAL, 64, np.int32))
        put_json(folder / "summary.json", summary)

    for run in study.runs:
        step = step_seconds[run.variant] * float(np.exp(noise * generator.normal()))
        if not skip(run):
            write_run(run, step)
    if parity:
        for workload in study.config["workloads"]:
            put_json(study.verdict(workload), passing_verdict(study, workload))
    if manifests:
        for name in study.blocks:
            write_manifest(study, name)
    return study


def run_summary(
    study: Study, run: Run, windows: list, epochs: list, batches: str
) -> dict[str, Any]:
    """Return a summary that agrees with its tables."""
    columns = {name: np.array([w[name] for w in windows], float) for name in windows[0]}
    batch = study.workload(run.workload)["global_batch"]
    counted = contention.counts(columns, CPUS)
    training = epochs[-1]["training_seconds"]
    compiles = study.variant(run.variant)["mode"] != "eager"
    cold = {"trace_seconds": 0.5, "compile_seconds": 8.0, "first_window_seconds": 0.2}
    seconds = {"import": 3.0, "staging": 0.1, "trace": 0.2, "compile": float(compiles)}
    seconds |= {"training": training, "data_wait": 0.01 * training, "evaluation": 0.2}
    return {
        "schema": "lockstep-record/1",
        "study": study.name,
        "workload": run.workload,
        "variant": run.variant,
        "scale": str(run.scale),
        "seed": run.seed,
        "identity": hashlib.sha256(run.name.encode()).hexdigest(),
        "status": "finished",
        "reason": None,
        "ended": "2026-01-02T03:04:05+00:00",
        "steps": TOTAL,
        "total_steps": TOTAL,
        "seconds": {**seconds, "checkpoint": 0.0},
        "cache": "warm" if compiles else "none",
        "steady": rates.steady(columns, batch, counted) or {"absent": "no window counts"},
        "flops": {"total": 1e9 * training, "per_second": 1e9},
        "energy": {"absent": "no energy counter was read"},
        "memory": {"max_rss_bytes": 900_000_000, "device": {"absent": "it keeps no count"}}
        | {"planned": {"absent": "the framework does not plan memory"}},
        "metrics": {k: epochs[-1][k] for k in ("train_loss", "test_loss", "test_accuracy")},
        "target": met(study.workload(run.workload)["target"], epochs),
        "batches": batches,
        "dataset": {"name": "digits", "content": "c" * 64},
        "weights": {"initial": hashlib.sha256(str(run.seed).encode()).hexdigest()},
        "attempts": 1,
        "contention": {"watched": True, "reason": None, "cpus": CPUS},
        "cold_start": cold if compiles and run.seed == 0 else {"absent": "another run's"},
        "contract": contract(study, run),
    }


def met(target: Mapping[str, Any], epochs: list) -> dict[str, Any]:
    """Return a target with when it was first met."""
    value = target["value"]
    first: dict[str, Any] = next((e for e in epochs if e["test_accuracy"] >= value), {})
    return {**target} | {key: first.get(key) for key in ("step", "training_seconds")}


ENGINES: dict[str, dict[str, Any]] = {
    "torch": {"torch": "2.15.0", "cuda": "13.2", "cudnn": 92600, "nccl": "2.30.7"}
    | {"matmul_float32": "ieee", "convolution_float32": "ieee"},
    "jax": {"jax": "0.10.2", "platform_version": "PJRT C API\ncuda 13020"}
    | {"matmul_precision": "highest"},
}


def contract(study: Study, run: Run) -> dict[str, Any]:
    """Return a fair run's contract, on a GPU."""
    variant, size = study.variant(run.variant), run.scale.size
    batch = study.workload(run.workload)["global_batch"]
    engine = {**ENGINES[variant["framework"]], "device": "NVIDIA H100 80GB HBM3"}
    return {
        "variant": dict(variant),
        "recipe": places.without(study.workload(run.workload)),
        "determined_by": {"code": variant["framework"] * 8, "environment": {"numpy": "2.4.6"}},
        "engine": engine | types(variant["precision"]),
        "topology": {"devices": size, "world_size": size, "local_batch": batch // size}
        | {"threads": 2, "window_steps": STEPS},
        "host": {
            "node": f"node-{run.seed}",
            "system": "Linux 6",
            "python": "3.11.7",
            "cpu": "EPYC",
            "instruction_set": "6a93",
            "cores": 16,
            "gpus": [{"name": "H100", "uuid": f"GPU-{run.seed}", "driver": "580.1"}],
            "job": {"id": str(run.seed)},
        },
    }


CURVES = {"float64": 1e-16, "float32": 1e-7, "float32_tolerance": 1e-5}


def passing_verdict(study: Study, workload: str, *, fails: str | None = None) -> dict[str, Any]:
    """Return a verdict; the variant `fails` differs in a gradient."""
    reference, *others = study.traces()
    comparisons = {}
    for name in others:
        wanted = sorted(parity_verdict.wanted(study, {}, name, reference), reverse=True)
        comparisons[name] = {
            "passed": name != fails,
            "rungs": [_rung(*rung, rung[1] == "gradient" and name == fails) for rung in wanted],
            "curves": {name: [value] * 20 for name, value in CURVES.items()},
        }
    return {
        "schema": parity_verdict.SCHEMA,
        "workload": workload,
        "reference": reference,
        "passed": fails is None,
        "comparisons": comparisons,
    }


def _rung(precision: str, name: str, bad: bool) -> dict[str, Any]:
    exact = name in ("weights", "batches")
    return {
        "precision": precision,
        "name": name,
        "value": 0.5 if bad else 0.0 if exact else 1e-16,
        "tolerance": 0.0 if exact else 1e-11,
        "worst": "conv1.kernel",
        "first": "conv1.kernel" if bad else None,
        "first_value": 0.5 if bad else None,
        "passed": not bad,
    }


def write_manifest(study: Study, block: str) -> None:
    """Write a block's manifest for the runs that have records."""
    runs = {}
    for run in study.block(block).runs:
        folder = study.run_folder(run)
        if (folder / "summary.json").is_file():
            names = ("summary.json", "epochs.csv", "windows.csv", "steps.npz")
            summary = json.loads((folder / "summary.json").read_text())
            runs[run.name] = {
                "identity": summary["identity"],
                "status": summary["status"],
                "sha256": {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names},
            }
    put_json(study.manifest(block), {"schema": "lockstep-block/1", "block": block, "runs": runs})


def put_json(path: Path, value: Any) -> None:
    """Write JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def put_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a table as the records do."""
    pd.DataFrame(rows, dtype=object).to_csv(path, index=False, lineterminator="\n")
