"""Learning rates as a pure function of the step: computed once here, handed to both frameworks.

PyTorch's and Optax's schedules start at different values by default; neither is used.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def learning_rates(
    recipe: Mapping[str, Any], steps_per_epoch: int, total_steps: int, first: int, steps: int
) -> np.ndarray:
    """Return the learning rates of `steps` steps from `first`, float64 ``(steps,)``.

    Warm-up is linear and reaches the peak at its end: step s (from 0) of W has peak * (s + 1) / W.
    `cosine` then falls to zero at the end of training (Loshchilov and Hutter, SGDR, 2017, without
    restarts).
    """
    peak = recipe["optimizer"]["learning_rate"]
    schedule = recipe["schedule"]
    warmup = round(schedule["warmup_epochs"] * steps_per_epoch)
    step = np.arange(first, first + steps, dtype=np.float64)
    if schedule["name"] == "cosine":
        progress = np.clip((step - warmup) / max(1, total_steps - warmup), 0.0, 1.0)
        rates = peak * 0.5 * (1.0 + np.cos(math.pi * progress))
    else:
        rates = np.full(steps, peak)
    return np.where(step < warmup, peak * (step + 1) / max(1, warmup), rates)
