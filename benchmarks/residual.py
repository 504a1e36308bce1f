"""The time of a training step of a small `resnet18_cifar10`, float32, batch 64.

The workload's small preset (one block a stage, 8 channels in the first), with random crops and
flips of 32x32 images, measured as `benchmarks.step` measures `mnist_cnn`: windows of batches in
memory, a process a variant, in turns. How a convolution is lowered is a choice on JAX's side, the
layout of memory one on PyTorch's.

Beside it how long the one loop waits for data: the shared feed gathers windows out of 50,000
images, with their crops, masks and learning rates, while the one before is trained.
"""

import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import studies
from benchmarks.row import Row, ratio, times
from benchmarks.step import take_turns
from benchmarks.turns import elsewhere
from lockstep import workloads

WORKLOAD = "resnet18_cifar10"
WINDOW = 5
REFERENCE = "torch-eager, channels_last"
LIMIT = ("<=", 1.05)
WAITING = ("<=", 0.01)
VARIANTS: dict[str, dict[str, Any]] = {
    "torch-eager": {"framework": "torch", "mode": "eager"},
    REFERENCE: {"framework": "torch", "mode": "eager", "memory_format": "channels_last"},
    "torch-compile": {"framework": "torch", "mode": "compile"},
    "jax-jit, im2col": {"framework": "jax", "mode": "jit", "convolution": "im2col"},
    "jax-jit, XLA's convolution": {"framework": "jax", "mode": "jit"},
}
QUICK = (REFERENCE, "jax-jit, XLA's convolution")


def measure(quick: bool) -> list[Row]:
    """Return each variant's step, and its ratio to PyTorch eager, channels last."""
    spec = workloads.spec(WORKLOAD)
    recipe: dict[str, Any] = {**spec.small, "global_batch": 64}
    if quick:
        recipe = {"model": {"blocks": [1], "width": 4, "size": 12}, "global_batch": 8}
    variants = {name: VARIANTS[name] for name in (QUICK if quick else VARIANTS)}
    turns = take_turns(variants, WORKLOAD, recipe, WINDOW, *((3, 1) if quick else (20, 2)))
    jax = [name for name in variants if name.startswith("jax")]
    best = min(jax, key=lambda name: float(np.median(turns[name])))
    rows = [
        ratio(f"{n} : {REFERENCE}", turns[n], turns[REFERENCE], LIMIT if n == best else None)
        for n in variants
        if n != REFERENCE
    ]
    rows.sort(key=lambda row: row.limit is None)
    rows.append(_waiting(recipe, *((100, 3) if quick else (50_000, 40))))
    return rows + [
        times(name, "ms/step", 1e3 / WINDOW * np.array(turns[name])) for name in variants
    ]


def _waiting(recipe: dict[str, Any], examples: int, windows: int) -> Row:
    with (
        tempfile.TemporaryDirectory() as folder,
        elsewhere(serve, (folder, recipe, examples)) as it,
    ):
        it.send(windows)
        waits, steps = it.recv()
    return ratio(f"data wait : step, {REFERENCE}", waits, steps, WAITING)


def serve(connection: Connection, told: tuple[str, dict[str, Any], int]) -> None:
    """In a process of its own: train windows as the one loop does; send what it clocks of each."""
    from benchmarks.trainer import Trainer

    folder, recipe, examples = told
    study = studies.make(
        Path(folder),
        examples=examples,
        workload=WORKLOAD,
        workloads=recipe,
        variants={"it": VARIANTS[REFERENCE]},
        window_steps=WINDOW,
    )
    trainer = Trainer(study, "it")
    waits, steps = [], []
    windows = trainer.feed.windows(0, trainer.feed.total_steps)
    for _ in range(connection.recv() + 1):
        begin = time.perf_counter()
        window = next(windows)
        ready = time.perf_counter()
        trainer.train(window)
        waits.append(ready - begin)
        steps.append(time.perf_counter() - begin)
    connection.send((waits[1:], steps[1:]))  # the first makes the order of the epoch
