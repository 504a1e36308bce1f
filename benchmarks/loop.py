"""What the one loop costs over a hand-written minimal loop of the same framework.

The one loop (`lockstep.training.loop`) runs as in a run: shared reader, masks, learning rates,
checksum of every batch inside the step, fence and clocks at each window, rows of records, log and
TensorBoard. The minimal loop (`benchmarks.minimal`) makes as many steps on the same batches, so
that both are timed in turns within one process; so do the loops that a user would pick instead
(`benchmarks.picked`), on batches of their own. A turn has two windows, and the second one counts:
the first finds the caches and threads of whoever came before. Left out are an epoch's evaluation,
which the minimal loop does not make, and checkpoints, which fall due once a minute: their time is
told apart.
"""

import os
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import picked, studies
from benchmarks.row import Row, ratio, times
from benchmarks.turns import Times, elsewhere

VARIANTS = ("torch-eager", "jax-jit")
LIMIT = ("<=", 1.02)
WINDOW = 25  # steps, as in the default study
EPOCH = 40  # windows: few of them end with an evaluation
WARM_UP = 2  # turns
TURN = 2  # windows
OURS = ("loop", "minimal", "checkpoint")


def measure(quick: bool) -> list[Row]:
    """Return the cost of the loop for each framework."""
    rows = []
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            turns, epoch = (3, 11) if quick else (80, EPOCH)
            job = {"folder": folder, "variant": variant, "turns": turns, "epoch": epoch}
            with elsewhere(serve, job) as worker:
                seconds: Times = worker.recv()
        milliseconds = {name: 1e3 * np.array(values) for name, values in seconds.items()}
        rows += [
            ratio(f"{variant}: loop : minimal loop", seconds["loop"], seconds["minimal"], LIMIT),
            times(f"{variant}: loop", "ms/step", milliseconds["loop"] / WINDOW),
            times(f"{variant}: minimal loop", "ms/step", milliseconds["minimal"] / WINDOW),
            times(f"{variant}: a checkpoint", "ms", milliseconds["checkpoint"]),
        ]
        for name in [name for name in seconds if name not in OURS]:
            title = f"{variant}: {name}"
            rows.append(ratio(f"{title} : loop", seconds[name], seconds["loop"]))
            rows.append(times(title, "ms/step", milliseconds[name] / WINDOW))
    return rows


def serve(connection: Connection, job: dict[str, Any]) -> None:
    """In a process of its own: send the seconds of each window of both loops."""
    from benchmarks import minimal
    from benchmarks.trainer import Trainer
    from lockstep.training import loop
    from lockstep.training.tracking import Tracking
    from lockstep.training.watch import Watch

    examples = job["epoch"] * WINDOW * 64
    study = studies.make(Path(job["folder"]), examples=examples, window_steps=WINDOW)
    trainer = Trainer(study, job["variant"])
    feed, spec = trainer.feed, trainer.spec
    by_hand = getattr(minimal, f"{spec.settings['framework']}_loop")(spec.recipe, trainer.initial)
    Path(spec.folder).mkdir(parents=True)
    total = (WARM_UP + job["turns"]) * TURN * WINDOW
    tracking = Tracking(spec, total, 0)
    framework = spec.settings["framework"]
    taken = feed.reader.take(np.arange(feed.reader.examples))
    arrays = taken["image"], taken["label"]
    others = {
        name: picked.make(name, framework, spec.recipe, trainer.initial, *arrays)
        for name in picked.installed(framework)
    }
    seconds: Times = {name: [] for name in (*OURS, *others)}
    progress = loop.Progress()
    mark = 0.0

    def report(row: dict[str, Any], epoch: dict[str, Any] | None) -> None:
        nonlocal mark
        tracking.report(row, epoch)
        ours = time.perf_counter() - mark
        turn, window = divmod(len(progress.windows), TURN)
        if window:
            mark = time.perf_counter()
            return
        steps = range(row["step"], row["step"] + row["steps"])
        rows = [feed.reader.take(feed.order.batch(step)[0]) for step in steps]
        batches = [(row["image"], row["label"]) for row in rows]
        counts = turn > WARM_UP and epoch is None
        for _ in range(TURN):
            begin = time.perf_counter()
            by_hand(batches)
            theirs = time.perf_counter() - begin
        if counts:
            seconds["loop"].append(ours)
            seconds["minimal"].append(theirs)
        for name, make_steps in others.items():
            for _ in range(TURN):
                begin = time.perf_counter()
                make_steps(row["steps"])
            if counts:
                seconds[name].append(time.perf_counter() - begin)
        mark = time.perf_counter()

    plan = loop.Plan(
        total_steps=total,
        attempt=0,
        evaluation=trainer.evaluation,
        finish=trainer.job.finish,
        watch=Watch(os.sched_getaffinity(0), {}),
        wish=trainer.wish,
        save=trainer.save,
        report=report,
    )
    mark = time.perf_counter()
    loop.train(trainer.engine, feed, plan, progress)
    tracking.close()
    for _ in range(5):
        begin = time.perf_counter()
        trainer.save(progress)
        seconds["checkpoint"].append(time.perf_counter() - begin)
    connection.send(seconds)
