"""A run's parts, put together as `lockstep.training.worker` does, for measurements to drive."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lockstep import engines, workloads
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.engines.contract import Job, Window
from lockstep.study import Study
from lockstep.training import block, checkpoint, loop
from lockstep.training.feed import SharedFeed, evaluation_batches
from lockstep.workloads import weights
from lockstep.workloads.contract import Data


class Trainer:
    """A run that is ready for its first step.

    Attributes:
        spec: of the run.
        initial: its initial state.
        engine: prepared.
        feed: of its training examples.
    """

    def __init__(self, study: Study, variant: str) -> None:
        run = next(run for run in study.runs if run.variant == variant)
        self.spec = block.specify(study, run, resume_from=None, host={})
        reader = Reader(Path(self.spec.dataset), "train")
        self.job = Job(
            workload=workloads.spec(self.spec.recipe["workload"]),
            recipe=self.spec.recipe,
            variant=self.spec.settings,
            window_steps=self.spec.window_steps,
            data=Data.of(read_manifest(Path(self.spec.dataset))),
            caches=Path(self.spec.caches),
        )
        self.engine = engines.start(self.job)
        self.initial = weights.load(Path(self.spec.weights))
        self.engine.load(self.initial)
        self.engine.prepare()
        self.feed = SharedFeed(self.job, reader, self.spec.seed)
        self.test = Reader(Path(self.spec.dataset), "test")
        self.saved_at = time.monotonic()

    def evaluation(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield the batches of an evaluation."""
        return evaluation_batches(self.job, self.test)

    def wish(self, progress: loop.Progress) -> int:
        """Ask the clock whether a checkpoint is due; none ever is."""
        return loop.SAVE if time.monotonic() - self.saved_at >= 1e6 else loop.CONTINUE

    def save(self, progress: loop.Progress) -> None:
        """Make a checkpoint."""
        state = checkpoint.Checkpoint(
            step=progress.step,
            trajectory=self.spec.trajectory,
            state=self.engine.state(),
            losses=np.concatenate(progress.losses),
            checksums=np.concatenate(progress.checksums),
            counts=np.concatenate(progress.counts),
            weights=np.concatenate(progress.weights),
            progress={"windows": progress.windows, "epochs": progress.epochs},
        )
        checkpoint.save(Path(self.spec.checkpoints), state)

    def train(self, window: Window) -> None:
        """Make a window's steps, and wait for them."""
        self.engine.fetch(self.engine.train(window))
