"""The time of a training step of a small `resnet18_cifar10`, float32, batch 64.

The workload's small preset (one block a stage, 8 channels in the first), with random crops and
flips of 32x32 images, measured as `benchmarks.step` measures `mnist_cnn`: windows of batches in
memory, a process a variant, in turns. How a convolution is lowered is a choice on JAX's side, the
layout of memory one on PyTorch's.
"""

from typing import Any

import numpy as np

from benchmarks.row import Row, ratio, times
from benchmarks.step import take_turns
from lockstep import workloads

WORKLOAD = "resnet18_cifar10"
WINDOW = 5
REFERENCE = "torch-eager, channels_last"
LIMIT = ("<=", 1.05)
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
    return rows + [
        times(name, "ms/step", 1e3 / WINDOW * np.array(turns[name])) for name in variants
    ]
