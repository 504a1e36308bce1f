"""A training step of BERT, 2x128, float32, 16 rows of 128 tokens; dropout; reading rows of tokens.

Steps are measured as `benchmarks.step` measures them: windows of batches in memory, a process a
variant, in turns. Dropout is on, and its random numbers are the shared ones (a hash in both
frameworks); beside it the same step with the numbers of the framework's own generator.

`reader` takes rows of 128 tokens in random order, windows of 25 batches of 64 at once, as a run's
feed does; `np.take` gathers as many at once from RAM. Both are compared within a process, in some
processes one after the other. The order of an epoch is told apart.
"""

import itertools
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import data, studies
from benchmarks.row import Row, extremes, ratio, times
from benchmarks.step import take_turns
from benchmarks.turns import elsewhere, in_turns
from lockstep.datasets.order import Order
from lockstep.datasets.reader import Reader

WORKLOAD = "bert_mlm"
WINDOW, BATCH = 5, 16
LENGTH, PIECES = 128, 8192
ROWS = 25 * 64  # that are taken at once
REFERENCE = "torch-eager"
SHARED = ("<=", 1.05)
COMPILED = ("torch-compile", "jax-jit")
NATIVE = {name: f"{name}-native" for name in COMPILED}  # a folder: no spaces for inductor
VARIANTS: dict[str, dict[str, Any]] = {
    REFERENCE: studies.VARIANTS["torch-eager"],
    "torch-compile": studies.VARIANTS["torch-compile"],
    "jax-jit": {"framework": "jax", "mode": "jit"},
}
VARIANTS |= {NATIVE[name]: {**VARIANTS[name], "randomness": "native"} for name in COMPILED}


def measure(quick: bool) -> list[Row]:
    """Return each variant's step, what shared dropout costs, and the reader's ratio to RAM."""
    recipe: dict[str, Any] = {"global_batch": BATCH, "model": {"size": "2x128"}}
    if quick:
        recipe = {"global_batch": 4, "model": {"size": "1x32", "head": 16}}
    recipe["model"] |= {"vocabulary": PIECES, "length": LENGTH, "predictions": 20}
    variants = {k: v for k, v in VARIANTS.items() if not quick or "torch-compile" not in k}
    turns = take_turns(variants, WORKLOAD, recipe, WINDOW, *((3, 1) if quick else (30, 3)))
    rows = [ratio(f"{n} : {REFERENCE}", turns[n], turns[REFERENCE]) for n in COMPILED if n in turns]
    rows += [
        ratio(f"{name} : {native}", turns[name], turns[native], SHARED)
        for name, native in NATIVE.items()
        if name in turns
    ]
    rows += [times(name, "ms/step", 1e3 / WINDOW * np.array(turns[name])) for name in variants]
    tokens = WINDOW * recipe["global_batch"] * LENGTH
    rows += [times(name, "tokens/s", tokens / np.array(turns[name])) for name in variants]
    return rows + _reading(*((2_000, 3, 1) if quick else (50_000, 124, 8)))


def _reading(examples: int, rounds: int, processes: int) -> list[Row]:
    """Return what reading takes; where memory comes to lie, each process decides anew."""
    with tempfile.TemporaryDirectory() as folder:
        made = data.write_tokens(Path(folder) / "data", examples, LENGTH, PIECES)
        turns = []
        for _ in range(processes):
            with elsewhere(serve, (made, rounds)) as worker:
                turns.append(worker.recv())
    sides = {name: np.array([each[name] for each in turns]) for name in turns[0]}
    shares = np.median(sides["np.take"] / sides["reader"], axis=1)
    taken = examples // ROWS * ROWS
    return [
        extremes("reader : np.take from RAM, by process", "x", shares, (">=", 0.95)),
        *(
            times(f"{name}, rows of tokens", "rows/s", taken / sides[name].ravel())
            for name in ("reader", "np.take")
        ),
        times(f"the order of {examples:,} rows", "ms", 1e3 * sides["order"].ravel()),
    ]


def serve(connection: Connection, told: tuple[Path, int]) -> None:
    """In a process of its own: take all rows in random order, by the reader and from RAM."""
    made, rounds = told
    reader = Reader(made, "train")
    permutation = np.random.Generator(np.random.Philox(1)).permutation(reader.examples)
    order = Order(reader.examples, ROWS, seed=0, drop_last=True)
    epochs = itertools.count()
    starts = range(0, reader.examples - ROWS + 1, ROWS)
    windows = [permutation[start : start + ROWS] for start in starts]

    functions = {
        **data.gathering(reader, windows),
        "order": lambda: order.batch(next(epochs) * order.steps_per_epoch),
    }
    connection.send(in_turns(functions, rounds, warm_up=2))
