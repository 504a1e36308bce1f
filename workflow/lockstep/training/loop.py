"""The one loop: epochs, windows, clocks, evaluation, checkpoints and interruption.

Every variant of every framework is timed by these lines. Windows are anchored at epochs' starts
and have absolute edges; checkpoints fall on edges; so the same programs run on the same steps
whether or not a run was resumed.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lockstep.engines.contract import Engine, Evaluation
from lockstep.training.clock import Clock
from lockstep.training.feed import Feed
from lockstep.training.watch import Watch

CONTINUE, SAVE, STOP, GIVE_UP = 0, 1, 2, 3  # a rank's wish at an edge; the largest is done


class NonFiniteLoss(Exception):
    """The loss became NaN or infinite: the run has failed, and that is its result."""

    def __init__(self, step: int, loss: float, what: str = "loss") -> None:
        super().__init__(f"the {what} is {loss} at step {step}")
        self.step = step


class Disturbed(Exception):
    """Others have the machine: whatever the run would measure is not its own time."""

    def __init__(self, step: int) -> None:
        super().__init__(f"gave up at step {step}: the machine is busy with other work")


@dataclass
class Progress:
    """A run so far; what a checkpoint keeps besides the state.

    Attributes:
        step: steps made.
        losses: of every step, float64.
        checksums: of every step's batch, uint32.
        counts: real examples of every step.
        weights: their loss units.
        windows: one row a window.
        epochs: one row an evaluation, of which there is one an epoch unless the recipe says other.
        clock: seconds by phase.
        watched: what the watch of this rank has added up (`lockstep.training.watch`).
        resumed_from: `identity` and `step` of the checkpoint of another run that this one was
            begun from. Its steps are these losses', its windows and seconds are not among these.
    """

    step: int = 0
    losses: list[np.ndarray] = field(default_factory=list)
    checksums: list[np.ndarray] = field(default_factory=list)
    counts: list[np.ndarray] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    windows: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)
    watched: dict[str, float] = field(default_factory=dict)
    resumed_from: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the loop is to do.

    Attributes:
        total_steps: steps of the whole run.
        attempt: how many times this run was started before.
        evaluate_every: steps between evaluations; 0 for one at the end of each epoch.
        evaluation: returns the batches of an evaluation.
        finish: makes the workload's metrics of what it found.
        watch: says after every window what this rank saw of others on the machine.
        wish: asked at every edge, with the run so far, for CONTINUE, SAVE, STOP or GIVE_UP.
        save: makes a checkpoint.
        report: told of every finished window (and epoch, or None).
    """

    total_steps: int
    attempt: int
    evaluate_every: int = 0
    evaluation: Callable[[], Iterable[Mapping[str, np.ndarray]]]
    finish: Callable[[Evaluation], Mapping[str, float]]
    watch: Watch
    wish: Callable[[Progress], int]
    save: Callable[[Progress], None]
    report: Callable[[dict[str, Any], dict[str, Any] | None], None]


def train(engine: Engine, feed: Feed, plan: Plan, progress: Progress) -> bool:
    """Train from `progress` to the end of the plan.

    Returns:
        True at the end, False if the run was interrupted and has saved a checkpoint.

    Raises:
        NonFiniteLoss: at the first step or evaluation whose loss is not finite.
        Disturbed: a rank wished to give up.
    """
    warm_up = True  # the first window of a process is no steady state
    coming = feed.windows(progress.step, plan.total_steps, engine.stage)
    with contextlib.closing(coming) as windows:
        while progress.step < plan.total_steps:
            epoch = progress.step // feed.steps_per_epoch
            epoch_end = min((epoch + 1) * feed.steps_per_epoch, plan.total_steps)

            begin = time.perf_counter()
            window = next(windows)
            ready = time.perf_counter()
            losses, checksums = engine.fetch(engine.train(window))
            end = time.perf_counter()
            told = plan.watch.told(last=progress.step + window.steps == plan.total_steps)

            progress.clock.add("training", end - begin)
            progress.clock.add("data_wait", ready - begin)
            finite = np.isfinite(losses)
            if not finite.all():
                first = int(np.argmin(finite))
                raise NonFiniteLoss(progress.step + first, float(losses[first]))
            progress.losses.append(losses)
            progress.checksums.append(checksums)
            progress.counts.append(window.examples[: window.steps])
            progress.weights.append(window.weights[: window.steps])
            row = {
                "step": progress.step,
                "steps": window.steps,
                "epoch": epoch,
                "seconds": end - begin,
                "data_seconds": ready - begin,
                "loss": float(losses.mean()),
                "warm_up": int(warm_up),
                "attempt": plan.attempt,
                "examples": int(window.examples[: window.steps].sum()),
                "weight": int(window.weights[: window.steps].sum()),
                **plan.watch.columns(told),
            }
            progress.windows.append(row)
            progress.step += window.steps
            warm_up = False

            finished = None
            every, last = plan.evaluate_every, progress.step == plan.total_steps
            due = progress.step % every == 0 if every else progress.step == epoch_end
            if due or last:
                finished = _evaluate(engine, plan, progress, epoch)

            wish, *largest = engine.agree([plan.wish(progress), *told])
            row |= plan.watch.columns(largest)
            plan.report(row, finished)
            if wish == GIVE_UP:
                raise Disturbed(progress.step)
            if wish != CONTINUE and progress.step < plan.total_steps:
                with progress.clock("checkpoint"):
                    plan.save(progress)
                if wish == STOP:
                    return False
            if finished or wish != CONTINUE:
                plan.watch.skip()
        return True


def _evaluate(engine: Engine, plan: Plan, progress: Progress, epoch: int) -> dict[str, Any]:
    """Evaluate, and add a row of what was trained since the last evaluation."""
    with progress.clock("evaluation"):
        found = engine.evaluate(plan.evaluation())
        metrics = plan.finish(found)
    steps = progress.step - (progress.epochs[-1]["step"] if progress.epochs else 0)
    losses = np.concatenate(progress.losses)[-steps:]
    weights = np.concatenate(progress.weights)[-steps:]
    test_loss = found.loss
    if not math.isfinite(test_loss):  # the last step was one too many
        raise NonFiniteLoss(progress.step, test_loss, "test loss")
    row = {
        "epoch": epoch,
        "step": progress.step,
        "train_loss": math.fsum(losses * weights) / int(weights.sum()),
        "test_loss": test_loss,
        **{f"test_{name}": value for name, value in metrics.items()},
        "training_seconds": progress.clock.seconds["training"],
    }
    progress.epochs.append(row)
    return row
