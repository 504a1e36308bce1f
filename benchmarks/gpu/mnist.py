"""`mnist_cnn`: ten epochs at batch 64, float32, of every way to execute it.

A turn is an epoch by the one loop (`lockstep.training.loop`), its evaluation timed separately; each
variant trains ten, from the initial weights, after one that does not count. The time of ten epochs
is the sum of ten turns. `reader` takes every window through the shared reader; `on the device`
those of the first epoch again and again, which lie there before the clock starts.
"""

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.gpu.session import FEWEST, Session, Trial
from benchmarks.row import ratio, times

PART = "mnist"
WORKLOAD = "mnist_cnn"
REFERENCE = "torch-eager"
EPOCHS = 10
LIMIT = ("<=", 1.5)  # seconds for ten epochs
WINDOW = 100  # steps between two fences: as many as one dispatch may have
JIT = {"framework": "jax", "mode": "jit"}
VARIANTS: dict[str, dict[str, Any]] = {
    REFERENCE: {"framework": "torch", "mode": "eager", "memory_format": "channels_last"},
    "torch-compile": {"framework": "torch", "mode": "compile", "memory_format": "channels_last"},
    "jax-jit": JIT,
    "jax-jit, 10 steps per dispatch": {**JIT, "steps_per_dispatch": 10},
    "jax-jit, 100 steps per dispatch": {**JIT, "steps_per_dispatch": 100},
}
QUICK = {
    REFERENCE: VARIANTS[REFERENCE],
    "jax-jit, 2 steps per dispatch": {**JIT, "steps_per_dispatch": 2},
}
NO_GRAPH = "not measured: PyTorch has no variant that captures steps as a CUDA graph"


def measure(session: Session) -> None:
    """Write times of epochs and of starts, and what is compiled while training goes."""
    quick = session.quick
    examples, tests = (320, 64) if quick else (60_000, 10_000)
    manifest, data = session.dataset("mnist", (28, 28, 1), examples, tests, staged=not quick)
    session.results.note(PART, "data", data)
    session.results.note(PART, "torch, CUDA graph", NO_GRAPH)
    variants = QUICK if quick else VARIANTS
    settings = {
        "workload": WORKLOAD,
        "recipe": {"epochs": EPOCHS},
        "manifest": manifest,
        "window_steps": 4 if quick else WINDOW,
    }
    with session.trials(PART, variants, settings) as trials:
        if not quick:  # there a process may have been used before
            for trial in trials.values():
                _start(session, trial)
        for place, on_device, share in (("reader", False, 0.4), ("on the device", True, 0.6)):
            _epochs(session, trials, place, on_device, share * session.deadline.left)
    again = [name for name, it in variants.items() if it["mode"] != "eager"]
    if quick:
        shutil.rmtree(session.caches(PART), ignore_errors=True)
        again = again[:1] * 2  # cold and warm
    with session.reusing(False):
        for name in again:
            with session.trials(PART, {name: variants[name]}, settings) as trials:
                for trial in trials.values():
                    _start(session, trial)


def _epochs(
    session: Session, trials: dict[str, Trial], place: str, on_device: bool, most: float
) -> None:
    what, results = f"{EPOCHS} epochs, {place}", session.results
    # First evaluation, first read, windows put in place: these are no steady state.
    session.turns(PART, what, trials, 1, "epoch", on_device=on_device)
    session.turns(PART, what, trials, 1, "restart")
    rounds = FEWEST if session.quick else EPOCHS
    found = session.turns(PART, what, trials, rounds, "epoch", most, on_device=on_device)
    seconds: dict[str, np.ndarray] = {}
    for name, rows in found.items():
        training = np.array([row["training"] for row in rows])
        if len(training) < FEWEST:
            results.note(PART, f"{name}: {what}", "not measured: too few epochs in the time left")
            continue
        seconds[name] = training
        device, epochs = trials[name].device, len(rows)
        note = f"{epochs} epochs were trained; accuracy {rows[-1]['test_accuracy']:.4f}"
        whole = [training.mean() * EPOCHS]
        figure = times(f"{name}: {what}: training", "s", whole, session.limit(LIMIT))
        results.figure(PART, figure, device, note, {"epochs": rows})
        epoch = times(f"{name}: {place}: an epoch's training", "s", training)
        results.figure(PART, epoch, device)
        waits = ratio(f"{name}: {place}: data wait : training", column(rows, "data_wait"), training)
        results.figure(PART, waits, device)
        if not on_device:  # an evaluation goes through the reader either way
            values = column(rows, "evaluation")
            evaluation = times(f"{name}: an epoch's evaluation", "s", values)
            results.figure(PART, evaluation, device)
        programs = [float(sum(column(rows, "programs")))]
        compiled = times(f"{name}: {place}: programs compiled meanwhile", "", programs, ("<=", 0))
        results.figure(PART, compiled, device)
    session.ratios(PART, f"an epoch, {place}", seconds, REFERENCE)


def column(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """Return one value of each row."""
    return [row[name] for row in rows]


def _start(session: Session, trial: Trial) -> None:
    """Write how long it took until a trial could make its first step."""
    ready: Mapping[str, Any] = trial.preparation
    cache = {"none": "nothing compiled"}.get(ready["cache"], f"{ready['cache']} cache")
    figures = {
        "process to ready": ready["at"] - trial.child.started,
        "trace and compile": ready["trace_seconds"] + ready["compile_seconds"],
    }
    for what, value in figures.items():
        figure = times(f"{trial.name}: {what}, {cache}", "s", [value])
        session.results.figure(PART, figure, trial.device, facts={"preparation": ready})
