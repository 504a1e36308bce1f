"""How a run is stopped and gone on with: from its own checkpoint, or from another run's."""

import sys
import time
from pathlib import Path

import numpy as np

from lockstep.engines.contract import Engine
from lockstep.errors import UserError
from lockstep.interruption import Interruption
from lockstep.training import checkpoint, contention, loop
from lockstep.training.clock import Clock
from lockstep.training.spec import RunSpec
from lockstep.workloads import weights


class Saver:
    """Decides when to save or stop, and saves."""

    def __init__(
        self,
        spec: RunSpec,
        engine: Engine,
        interruption: Interruption,
        chief: bool,
        step: int,
        cpus: int,
    ) -> None:
        self.spec, self.engine, self.interruption = spec, engine, interruption
        self.chief = chief
        self.saved_at, self.saved_step = time.monotonic(), step
        self.cpus, self.judged_next = cpus, contention.HOPELESS_SECONDS

    def wish(self, progress: loop.Progress) -> int:
        """Return what this rank wants at an edge: to give up, to stop, to save or to continue."""
        if self.interruption.requested:
            return loop.STOP
        if self._hopeless(progress):
            return loop.GIVE_UP
        due = time.monotonic() - self.saved_at >= self.spec.checkpoint_seconds
        every = self.spec.checkpoint_steps
        if due or (every and progress.step - self.saved_step >= every):
            return loop.SAVE
        return loop.CONTINUE

    def _hopeless(self, progress: loop.Progress) -> bool:
        """Judge the windows so far, each time that twice as much was trained as the last time."""
        trained = progress.clock.seconds["training"]
        if trained < self.judged_next:
            return False
        self.judged_next = 2 * trained
        return contention.hopeless(progress.windows, self.cpus)

    def save(self, progress: loop.Progress) -> None:
        """Make a checkpoint, on rank 0."""
        state = self.engine.state()
        if self.chief:
            checkpoint.save(
                Path(self.spec.checkpoints),
                checkpoint.Checkpoint(
                    step=progress.step,
                    trajectory=self.spec.trajectory,
                    state=state,
                    losses=np.concatenate(progress.losses),
                    checksums=np.concatenate(progress.checksums),
                    counts=np.concatenate(progress.counts),
                    weights=np.concatenate(progress.weights),
                    progress={
                        "windows": progress.windows,
                        "epochs": progress.epochs,
                        "identity": self.spec.identity,
                        "resumed_from": progress.resumed_from,
                        "watched": progress.watched,
                    },
                ),
                late=lambda: {"seconds": progress.clock.so_far()},
            )
        self.saved_at, self.saved_step = time.monotonic(), progress.step


def restore(spec: RunSpec) -> tuple[loop.Progress, weights.State | None]:
    """Return the run so far: from its newest sound checkpoint, from the one named, or from none.

    Of a checkpoint of another run, in another framework perhaps, only what was learned is taken
    over: what it measured was not measured of this one.

    Returns:
        The progress, and the state to go on with.

    Raises:
        UserError: the checkpoint named belongs to another configuration.
    """
    found, problems = checkpoint.newest(Path(spec.checkpoints))
    for problem in problems:
        print(f"lockstep: {problem}; an older one is used", file=sys.stderr)
    if found is not None and spec.resume_from:
        print(
            f"lockstep: {spec.name} goes on from its own checkpoint, not from {spec.resume_from}",
            file=sys.stderr,
        )
    if found is None and spec.resume_from:
        found = checkpoint.load(Path(spec.resume_from))
        if found.trajectory != spec.trajectory:
            raise UserError(
                f"{spec.resume_from}: belongs to another configuration (recipe, dataset, weights, "
                f"seed or input differ): trajectory {found.trajectory[:12]} is not "
                f"{spec.trajectory[:12]}"
            )
    if found is None:
        return loop.Progress(), None
    kept = found.progress
    learned = loop.Progress(
        step=found.step,
        losses=[found.losses],
        checksums=[found.checksums],
        counts=[found.counts],
        weights=[found.weights],
        epochs=list(kept["epochs"]),
    )
    if kept["identity"] != spec.identity:
        learned.resumed_from = {"identity": kept["identity"], "step": found.step}
        return learned, found.state
    learned.resumed_from = kept.get("resumed_from")
    learned.windows, learned.clock = list(kept["windows"]), Clock(kept["seconds"])
    learned.watched = dict(kept["watched"])
    return learned, found.state
