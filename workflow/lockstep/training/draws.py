"""What is drawn of each example: its crop, its masked positions, the key of its dropout."""

import numpy as np

from lockstep.engines.contract import Job
from lockstep.workloads.contract import Draw

EPOCHS = 2  # whose draws are kept: a window may be read ahead of the one that is trained


class Draws:
    """The draws of a split's examples, an epoch at a time."""

    def __init__(self, job: Job, examples: int, seed: int, *, evaluation: bool = False) -> None:
        found = job.workload.draws(job.recipe, job.data)
        self._draws = [draw for draw in found if draw.evaluation or not evaluation]
        self._examples, self._seed = examples, seed
        self._known: dict[tuple[str, int], np.ndarray] = {}

    def of(self, indices: np.ndarray, epoch: int) -> dict[str, np.ndarray]:
        """Return what is drawn of some examples in an epoch, ``(n, …)`` by name."""
        return {draw.name: self._epoch(draw, epoch)[indices] for draw in self._draws}

    def _epoch(self, draw: Draw, epoch: int) -> np.ndarray:
        key = (draw.name, epoch)
        if key not in self._known:
            for name, old in list(self._known):
                if name == draw.name and old <= epoch - EPOCHS:
                    del self._known[name, old]
            self._known[key] = draw.make(self._examples, self._seed, epoch)
        return self._known[key]
