"""Batch sizes: how tiny batches are bound by launches, and how far large ones go.

`mnist_cnn` at tiny batches, float32: what remains of a step when the device has next to nothing to
do. `resnet18_cifar10` in bfloat16 at batches up to those for which memory is out. The processes of
both frameworks are there at a time, so that what one uses is not there for the other; each batch
size is compiled anew, in a fresh process. Windows lie on the device.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.gpu.child import Failed
from benchmarks.gpu.session import FEWEST, Session, Trial
from benchmarks.row import times

PART = "scan"
EAGER = {"framework": "torch", "mode": "eager", "memory_format": "channels_last"}
JIT = {"framework": "jax", "mode": "jit"}
TINY = (1, 16)
TINY_VARIANTS: dict[str, dict[str, Any]] = {
    "torch-eager": EAGER,
    "jax-jit": JIT,
    "jax-jit, 10 steps per dispatch": {**JIT, "steps_per_dispatch": 10},
}
LARGE = (128, 2048, 32768, 512, 8192)  # first the span, then what lies between
LARGE_VARIANTS: dict[str, dict[str, Any]] = {
    "torch-eager": {**EAGER, "precision": "bfloat16"},
    "jax-jit": {**JIT, "precision": "bfloat16"},
}
ROUNDS, WINDOWS = 8, 2


def measure(session: Session) -> None:
    """Measure tiny batches, then large ones."""
    _tiny(session)
    _large(session)


def _tiny(session: Session) -> None:
    quick = session.quick
    examples = 320 if quick else 60_000
    manifest, _ = session.dataset("mnist", (28, 28, 1), examples, examples // 5, staged=not quick)
    variants = {name: TINY_VARIANTS[name] for name in list(TINY_VARIANTS)[: 2 if quick else None]}
    for batch in TINY[:1] if quick else TINY:
        settings = {
            "workload": "mnist_cnn",
            "recipe": {"global_batch": batch},
            "manifest": manifest,
            "window_steps": 4 if quick else 100,
        }
        with session.trials(PART, variants, settings, f"batch {batch}") as trials:
            steps = _steps(session, trials, f"mnist_cnn, batch {batch}")
            for name, values in steps.items():
                figure = times(f"{name}: mnist_cnn, batch {batch}: a step", "µs", 1e6 * values)
                session.results.figure(PART, figure, trials[name].device)
            session.ratios(PART, f"mnist_cnn, batch {batch}, a step", steps, "torch-eager")


def _large(session: Session) -> None:
    quick = session.quick
    sizes = (4, 8) if quick else LARGE
    manifest, _ = session.dataset("squares", (32, 32, 3), 2 * max(sizes), 16)
    too_large: dict[str, int] = {}
    for batch in sizes:
        left = {n: v for n, v in LARGE_VARIANTS.items() if batch < too_large.get(n, batch + 1)}
        recipe: dict[str, Any] = {"global_batch": batch}
        if quick:
            recipe["model"] = {"blocks": [1], "width": 4, "size": 12}
        settings = {
            "workload": "resnet18_cifar10",
            "recipe": recipe,
            "manifest": manifest,
            "window_steps": 2,
        }
        what = f"resnet18_cifar10, batch {batch}"
        with session.trials(PART, left, settings, f"batch {batch}") as trials:
            steps = _steps(session, trials, what)
            for name, values in steps.items():
                _figures(session, trials[name], what, batch / values)
            session.ratios(PART, f"{what}, a step", steps, "torch-eager")
        for name in left.keys() - steps.keys():
            too_large[name] = batch  # out of memory, or of time: so would be a larger one


def _steps(session: Session, trials: dict[str, Trial], what: str) -> dict[str, np.ndarray]:
    """Return the seconds of a step, of each window; of a trial that failed there are none."""
    rounds = FEWEST if session.quick else ROUNDS
    session.turns(PART, what, trials, 1, "windows", on_device=True, count=1)
    found = session.turns(
        PART, what, trials, rounds, "windows", 20.0, on_device=True, count=WINDOWS
    )
    return {
        name: np.array([_step(row) for turn in turns for row in turn])
        for name, turns in found.items()
        if len(turns) >= FEWEST
    }


def _step(row: Mapping[str, float]) -> float:
    return (row["data"] + row["dispatch"] + row["device"]) / row["steps"]


def _figures(session: Session, trial: Trial, what: str, speeds: np.ndarray) -> None:
    ready = trial.preparation
    note = (
        f"{ready['programs']} programs compiled for this batch size, "
        f"{ready['trace_seconds'] + ready['compile_seconds']:.1f} s until ready"
    )
    figure = times(f"{trial.name}: {what}", "images/s", speeds)
    session.results.figure(PART, figure, trial.device, note, {"preparation": ready})
    try:
        found = trial.child.ask("memory", session.allowed(60.0))
    except Failed as error:
        session.results.note(PART, f"{trial.name}: {what}: memory", str(error), trial.device)
        return
    if "allocated" in found:
        figure = times(f"{trial.name}: {what}: memory, peak", "GB", [found["allocated"] / 1e9])
        session.results.figure(PART, figure, trial.device, facts=found)
