"""What the one loop costs over a hand-written minimal loop of the same framework.

The one loop (`lockstep.training.loop`) runs as in a run: shared reader, masks, learning rates,
checksum of every batch inside the step, fence and clocks at each window, rows of records, log and
TensorBoard. The minimal loop (`benchmarks.minimal`) makes as many steps on batches that lie in RAM;
so do the loops that a user would pick instead (`benchmarks.picked`). The one loop's own steps are
measured without it, too, on windows that are already read: what they take more than the minimal
loop's are checksum and mask, the rest is reading, clocks and records.

Each loop is in a process of its own, as in a run: in one process they would share a heap, and the
threads that one leaves waiting would hold the next one's cores. The processes take turns, in random
order. A turn has two windows, and the second one counts: the first finds the caches of whoever came
before. Left out are an epoch's evaluation, which the minimal loop does not make, and checkpoints,
which fall due once a minute: their time is told apart.
"""

import contextlib
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import picked, studies
from benchmarks.row import Row, ratio, times
from benchmarks.step import asker
from benchmarks.turns import Times, elsewhere, in_turns
from lockstep.study import Study

VARIANTS = ("torch-eager", "jax-jit")
LIMIT = ("<=", 1.02)
WINDOW = 25  # steps, as in the default study
EPOCH = 40  # windows
WARM_UP = 2  # turns
TURN = 2  # windows
OURS, STEPS, BY_HAND = "loop", "the same steps without the loop", "minimal loop"


def measure(quick: bool) -> list[Row]:
    """Return the cost of the loop for each framework."""
    rows, (turns, epoch) = [], (3, 11) if quick else (80, EPOCH)
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            study = studies.make(Path(folder), examples=epoch * WINDOW * 64, window_steps=WINDOW)
            seconds, saved = _in_turns(study, variant, turns)
        steps = {name: 1e3 / WINDOW * np.array(values) for name, values in seconds.items()}
        ours, by_hand = seconds[OURS], seconds[BY_HAND]
        rows += [
            ratio(f"{variant}: {OURS} : {BY_HAND}", ours, by_hand, LIMIT),
            times(f"{variant}: {OURS}", "ms/step", steps.pop(OURS)),
            times(f"{variant}: {BY_HAND}", "ms/step", steps.pop(BY_HAND)),
            times(f"{variant}: a checkpoint", "ms", 1e3 * np.array(saved)),
        ]
        for name, milliseconds in steps.items():
            rows.append(ratio(f"{variant}: {name} : {OURS}", seconds[name], ours))
            rows.append(times(f"{variant}: {name}", "ms/step", milliseconds))
    return rows


def _in_turns(study: Study, variant: str, turns: int) -> tuple[Times, list[float]]:
    """Return the seconds of each loop's windows, turn by turn, and those of checkpoints."""
    names = [OURS, STEPS, BY_HAND, *picked.installed(study.variant(variant)["framework"])]
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in names:  # one after the other: compiling takes all cores
            told = (str(study.path), variant, name, (WARM_UP + turns) * TURN * WINDOW)
            workers[name] = stack.enter_context(elsewhere(serve, told))
            workers[name].recv()
        askers = {name: asker(worker) for name, worker in workers.items()}
        return in_turns(askers, turns, warm_up=WARM_UP), askers[OURS]()


def serve(connection: Connection, told: tuple[str, str, str, int]) -> None:
    """In a process of its own: make a loop ready, then a turn of it whenever asked.

    Sends a turn's seconds: those of its second window.
    """
    from benchmarks.trainer import Trainer

    path, variant, name, total = told
    trainer = Trainer(Study.load(Path(path)), variant)
    if name == OURS:
        _ours(connection, trainer, total)
        return
    made = {STEPS: _steps, BY_HAND: _by_hand}.get(name)
    make_steps = made(trainer) if made else _picked(trainer, name)
    connection.send("ready")
    for _ in range(total // (TURN * WINDOW)):
        connection.recv()
        for _ in range(TURN):
            begin = time.perf_counter()
            make_steps(WINDOW)
            spent = time.perf_counter() - begin
        connection.send(spent)


def _steps(trainer: Any) -> Callable[[int], object]:
    engine, feed = trainer.engine, trainer.feed
    read = [feed.window(*edge) for edge in feed.edges(0, feed.steps_per_epoch)]
    coming = itertools.cycle(engine.stage(window) for window in read)
    return lambda count: engine.fetch(engine.train(next(coming)))


def _by_hand(trainer: Any) -> Callable[[int], object]:
    from benchmarks import minimal

    spec, feed = trainer.spec, trainer.feed
    loop = getattr(minimal, f"{spec.settings['framework']}_loop")(spec.recipe, trainer.initial)
    rows = [feed.reader.take(feed.order.batch(k)[0]) for k in range(feed.steps_per_epoch)]
    batches = [(row["image"], row["label"]) for row in rows]
    at = 0

    def make_steps(count: int) -> None:
        nonlocal at
        loop([batches[(at + k) % len(batches)] for k in range(count)])
        at += count

    return make_steps


def _picked(trainer: Any, name: str) -> Callable[[int], object]:
    spec, reader = trainer.spec, trainer.feed.reader
    taken = reader.take(np.arange(reader.examples))
    arrays = taken["image"], taken["label"]
    return picked.make(name, spec.settings["framework"], spec.recipe, trainer.initial, *arrays)


def _ours(connection: Connection, trainer: Any, total: int) -> None:
    """Train, and wait at the end of every turn for the next one; at last evaluate and save."""
    from lockstep.training import loop
    from lockstep.training.tracking import Tracking
    from lockstep.training.watch import Watch

    spec, progress, mark = trainer.spec, loop.Progress(), 0.0
    Path(spec.folder).mkdir(parents=True)
    tracking = Tracking(spec, total, 0)

    def report(row: dict[str, Any], epoch: dict[str, Any] | None) -> None:
        nonlocal mark
        tracking.report(row, epoch)
        spent = time.perf_counter() - mark
        if len(progress.windows) % TURN == 0:
            connection.send(spent)
            connection.recv()
        mark = time.perf_counter()

    plan = loop.Plan(
        total_steps=total + WINDOW,  # behind the last one it evaluates
        attempt=0,
        evaluate_every=total + WINDOW,
        evaluation=trainer.evaluation,
        finish=trainer.job.finish,
        watch=Watch(os.sched_getaffinity(0), {}),
        wish=trainer.wish,
        save=trainer.save,
        report=report,
    )
    connection.send("ready")
    connection.recv()
    mark = time.perf_counter()
    loop.train(trainer.engine, trainer.feed, plan, progress)
    tracking.close()
    saved = []
    for _ in range(5):
        begin = time.perf_counter()
        trainer.save(progress)
        saved.append(time.perf_counter() - begin)
    connection.send(saved)
