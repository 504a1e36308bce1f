"""`resnet18_cifar10` on staged CIFAR-10 to 94%: once in each framework, last, if time is left.

Bfloat16, the workload's recipe with half of its epochs. An epoch is one of the one loop, with its
evaluation timed separately. The figure is the training time until the test accuracy is first
reached; if the time is not enough, a row says how far it went.
"""

import time
from typing import Any

from benchmarks.gpu.child import Failed
from benchmarks.gpu.session import Deadline, Session, Trial
from benchmarks.row import times

PART = "cifar10"
TARGET = 0.94
EPOCHS = 30
VARIANTS: dict[str, dict[str, Any]] = {
    "torch-eager": {
        "framework": "torch",
        "mode": "eager",
        "memory_format": "channels_last",
        "precision": "bfloat16",
    },
    "jax-jit": {"framework": "jax", "mode": "jit", "precision": "bfloat16"},
}


def measure(session: Session) -> None:
    """Train in each framework until the target, the last epoch, or the end of its time."""
    quick = session.quick
    if not quick and (session.data is None or not (session.data / PART).is_dir()):
        where = "--data" if session.data is None else session.data / PART
        session.results.note(PART, PART, f"not measured: no staged files ({where})")
        return
    sizes = {"examples": 96, "tests": 16} if quick else {"examples": 50_000, "tests": 10_000}
    manifest, data = session.dataset(
        PART, (32, 32, 3), sizes["examples"], sizes["tests"], not quick
    )
    session.results.note(PART, "data", data)
    recipe: dict[str, Any] = {"epochs": EPOCHS, "schedule": {"warmup_epochs": 3.0}}
    if quick:
        model = {"blocks": [1], "width": 4, "size": 12}
        recipe = {"epochs": 2, "global_batch": 16, "model": model}
    settings = {
        "workload": "resnet18_cifar10",
        "recipe": recipe,
        "manifest": manifest,
        "window_steps": 2 if quick else 25,
    }
    wanted = [name for name, it in VARIANTS.items() if it["framework"] in session.devices]
    whole = session.deadline
    for number, name in enumerate(wanted):
        # What is left is shared among those that are to come.
        session.deadline = Deadline(time.monotonic() + whole.left / (len(wanted) - number))
        with session.trials(PART, {name: VARIANTS[name]}, settings) as trials:
            for trial in trials.values():
                _train(session, trial, recipe["epochs"])
    session.deadline = whole


def _train(session: Session, trial: Trial, epochs: int) -> None:
    seconds, best, rows = 0.0, 0.0, []
    why = f"the last of {epochs} epochs"
    for _ in range(epochs):
        try:
            row = trial.child.ask("epoch", session.deadline.left, on_device=False)
        except Failed as error:
            why = str(error) if session.deadline.left > 0 else "the end of its time"
            break
        rows.append(row)
        seconds += row["training"]
        best = max(best, row["test_accuracy"])
        if best >= TARGET:
            figure = times(f"{trial.name}: training until {TARGET:.0%}", "s", [seconds])
            note = f"{len(rows)} of {epochs} epochs, accuracy {best:.4f}"
            session.results.figure(PART, figure, trial.device, note, {"epochs": rows})
            return
    note = f"not reached until {why}: {len(rows)} epochs, accuracy at most {best:.4f}"
    what = f"{trial.name}: training until {TARGET:.0%}"
    session.results.note(PART, what, note, trial.device, {"epochs": rows})
    if rows:
        figure = times(f"{trial.name}: an epoch's training", "s", [r["training"] for r in rows])
        session.results.figure(PART, figure, trial.device)
