"""`input: native`: each framework's own loader, to show what its pipeline costs.

The bytes come from the same shards, but the order is the loader's own: batch checksums of
different variants differ, and their losses are compared over seeds only. The order is still a
function of seed and epoch, so that a run can be resumed.
"""

import importlib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.datasets import keys
from lockstep.datasets.reader import Examples
from lockstep.engines.contract import Job, Window
from lockstep.engines.part import Part
from lockstep.errors import UserError
from lockstep.training import schedule
from lockstep.training.feed import Stage, checked, edges, forward_flops, total_steps


class NativeFeed:
    """Windows of a framework's own loader; see `lockstep.training.feed.Feed`."""

    def __init__(self, job: Job, manifest: Path, seed: int) -> None:
        if len(job.lengths) > 1:
            raise UserError(
                "input: native cannot put examples of one length into a batch, which belongs to "
                "the shared order; set input: shared"
            )
        drawn = [draw.name for draw in job.workload.draws(job.recipe, job.data)]
        if drawn or job.workload.weight is not None:
            what = f"what is drawn of each example ({', '.join(drawn)})" if drawn else "weights"
            raise UserError(
                f"input: native cannot give {what}, which belongs to the shared order; set "
                "input: shared, or a recipe without it (augment: {name: none})"
            )
        self.job = job
        self.seed = seed
        self.source = Examples(manifest)
        framework = job.variant["framework"]
        self.loader = importlib.import_module(f"lockstep.engines.{framework}_input")
        batch = job.recipe["global_batch"]
        steps, rest = divmod(len(self.source), batch)
        self.steps_per_epoch = steps + bool(rest and not job.recipe["drop_last"])
        self.total_steps = total_steps(job.recipe, self.steps_per_epoch)
        self.forward_flops = forward_flops(job)
        self._next = -1  # the step that the open loader gives next
        self._batches: Any = None

    def windows(
        self, first: int, total: int, stage: Stage = lambda window: window
    ) -> Generator[Window, None, None]:
        """Yield a run's windows; what is read ahead is the loader's own business."""
        every = self.job.recipe["evaluate_every"]
        for edge in edges(first, total, self.steps_per_epoch, self.job.window_steps, every):
            yield stage(self.window(*edge))

    def window(self, first: int, steps: int) -> Window:
        """Return a window; rows beyond its steps are empty and never trained."""
        room, local = self.job.window_steps, self.job.local_batch
        batch = {array.name: array.blanks(room, local) for array in self.job.arrays()}
        batch["real"] = np.zeros((room, local), np.float32)
        counts = np.ones(room, np.int64)
        if first != self._next:
            self._open(first)
        for k in range(steps):
            rows = next(self._batches)
            count = len(next(iter(rows.values())))
            if count:  # of an epoch's last batch, a rank may have none
                made = self.job.workload.prepare(rows, {}, self.job.recipe, self.job.data, True)
                for array in self.job.arrays():
                    batch[array.name][k, :count] = checked(self.job, array, made, count)
                batch["real"][k, :count] = 1.0
            done = (first + k) % self.steps_per_epoch * self.job.recipe["global_batch"]
            counts[k] = min(self.job.recipe["global_batch"], len(self.source) - done)
        self._next = first + steps
        by_step = schedule.by_step(self.job, self.steps_per_epoch, self.total_steps, first, steps)
        return Window(
            steps=steps,
            batch=batch,
            examples=counts,
            weights=counts,
            length=self.job.lengths[0],
            **by_step,
        )

    def close(self) -> None:
        """Stop the loader's worker processes."""
        if self._batches is not None:
            self._batches.close()

    def _open(self, step: int) -> None:
        self.close()
        topology = self.job.topology
        part = Part(
            seed=int(keys.words(1, "native", self.seed)[0] >> np.uint64(34)),
            first_step=step,
            steps_per_epoch=self.steps_per_epoch,
            epochs=self.job.recipe["epochs"],
            global_batch=self.job.recipe["global_batch"],
            local_batch=self.job.local_batch,
            rank=topology.rank,
            world_size=topology.world_size,
            workers=self.job.variant["workers"],
        )
        self._batches = self.loader.batches(self.source, part)
