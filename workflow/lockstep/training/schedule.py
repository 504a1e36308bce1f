"""Numbers of a step, such as its learning rate: computed once here, handed to both frameworks.

PyTorch's and Optax's schedules start at different values by default; neither is used.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lockstep.engines.contract import Job
from lockstep.workloads import optimizers


def learning_rates(
    recipe: Mapping[str, Any], steps_per_epoch: int, total_steps: int, first: int, steps: int
) -> np.ndarray:
    """Return the learning rates of `steps` steps from `first`, float64 ``(steps,)``.

    Warm-up is linear and reaches the peak at its end: step s (from 0) of W has peak * (s + 1) / W.
    W is a number of steps, or of epochs. `cosine` then falls to zero at the end of training
    (Loshchilov and Hutter, SGDR, 2017, without restarts), and so does `linear`.
    """
    peak = recipe["optimizer"]["learning_rate"]
    schedule = recipe["schedule"]
    warmup = schedule["warmup_steps"] or round(schedule["warmup_epochs"] * steps_per_epoch)
    step = np.arange(first, first + steps, dtype=np.float64)
    progress = np.clip((step - warmup) / max(1, total_steps - warmup), 0.0, 1.0)
    if schedule["name"] == "cosine":
        rates = peak * 0.5 * (1.0 + np.cos(math.pi * progress))
    elif schedule["name"] == "linear":
        rates = peak * (1.0 - progress)
    else:
        rates = np.full(steps, peak)
    return np.where(step < warmup, peak * (step + 1) / max(1, warmup), rates)


def by_step(
    job: Job, steps_per_epoch: int, total: int, first: int, steps: int
) -> dict[str, dict[str, np.ndarray]]:
    """Return a window's `scalars` and `numbers` (`lockstep.engines.contract.Window`)."""
    room = job.window_steps
    # Of the whole room, as ever: how NumPy rounds a cosine may depend on how many it takes.
    rates = learning_rates(job.recipe, steps_per_epoch, total, first, room)
    made = [optimizers.scalars(job.recipe["optimizer"], first + k) for k in range(room)]
    own = [job.workload.scalars(job.recipe, first + k, total) for k in range(room)]
    rates[steps:] = rates[steps - 1]
    return {
        "scalars": {"learning_rate": rates, **_columns(made)},
        "numbers": _columns(own),
    }


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}
