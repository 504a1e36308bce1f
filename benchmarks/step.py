"""The time of a training step of `mnist_cnn`, float32, batch 64, of every way to execute it.

Each variant is an engine in a process of its own, as in a run, which trains windows of 20 steps on
batches that are already in memory; the processes take turns, a window each, in random order.
PyTorch eager is measured in both layouts of memory: what counts is its faster one.
"""

import contextlib
import tempfile
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import studies
from benchmarks.row import Row, ratio, times
from benchmarks.turns import elsewhere, in_turns

LIMIT = ("<=", 1.05)
WINDOW = 20
TRAINED = 4  # windows, again and again
EAGER = ("torch-eager", "torch-eager, channels_last")
VARIANTS: dict[str, dict[str, Any]] = {
    "torch-eager": studies.VARIANTS["torch-eager"],
    "torch-eager, channels_last": {
        "framework": "torch",
        "mode": "eager",
        "memory_format": "channels_last",
    },
    "torch-compile": studies.VARIANTS["torch-compile"],
    "jax-jit": studies.VARIANTS["jax-jit"],
    "jax-jit, 10 steps a dispatch": {**studies.VARIANTS["jax-jit"], "steps_per_dispatch": 10},
    "jax-jit, XLA's convolution": {"framework": "jax", "mode": "jit"},
}
QUICK = ("torch-eager", "jax-jit")


def measure(quick: bool) -> list[Row]:
    """Return each variant's step, and its ratio to PyTorch eager in its faster layout."""
    variants = {name: VARIANTS[name] for name in (QUICK if quick else VARIANTS)}
    turns = take_turns(variants, "mnist_cnn", {}, WINDOW, *((3, 1) if quick else (60, 3)))
    fastest = min(turns.keys() & set(EAGER), key=lambda name: float(np.median(turns[name])))
    others = [name for name in variants if name != fastest]
    rows = [
        ratio(f"{n} : {fastest}", turns[n], turns[fastest], LIMIT if n == "jax-jit" else None)
        for n in others
    ]
    rows.sort(key=lambda row: row.limit is None)
    return rows + [
        times(name, "ms/step", 1e3 / WINDOW * np.array(turns[name])) for name in variants
    ]


def take_turns(
    variants: Mapping[str, dict[str, Any]],
    workload: str,
    recipe: dict[str, Any],
    window: int,
    rounds: int,
    warm_up: int,
) -> dict[str, list[float]]:
    """Return the seconds of each variant's windows.

    Args:
        variants: by name.
        workload: its folder.
        recipe: changes of its recipe.
        window: steps of a window.
        rounds: windows of each variant that count.
        warm_up: windows before them.
    """
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        functions = {}
        for name, variant in variants.items():
            place = str(Path(folder) / name)
            told = (place, variant, workload, recipe, window, TRAINED)
            worker = stack.enter_context(elsewhere(serve, told))
            worker.recv()  # one after the other: compiling takes all cores
            functions[name] = asker(worker)
        return in_turns(functions, rounds, warm_up=warm_up)


def asker(worker: Connection) -> Any:
    """Return a function that has a worker train (`serve`); it returns what the worker says."""

    def ask() -> Any:
        worker.send("go on")
        return worker.recv()

    return ask


def serve(connection: Connection, told: tuple[str, dict, str, dict, int, int]) -> None:
    """In a process of its own: make a variant ready, then a window whenever asked."""
    from benchmarks.trainer import Trainer

    place, variant, workload, recipe, window, held = told
    study = studies.make(
        Path(place),
        examples=recipe.get("global_batch", 64) * window * held,
        workload=workload,
        workloads=recipe,
        variants={"it": variant},
        window_steps=window,
    )
    trainer = Trainer(study, "it")
    windows = [trainer.feed.window(k * window, window) for k in range(TRAINED)]
    connection.send("ready")
    turn = 0
    with contextlib.suppress(EOFError):
        while connection.recv():
            trainer.train(windows[turn % len(windows)])
            connection.send("done")
            turn += 1
