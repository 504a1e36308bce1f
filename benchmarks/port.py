"""What `lockstep port` costs: seconds and peak memory of the whole command, from start to exit.

The pair is a stack of residual layers of one width in PyTorch and in Flax NNX. With 10^7 parameters
it is compared as a person would, in float64 and float32, on 8 rows; with 10^9 in float32 alone, on
512 rows, so that each of both sides and their twins gives a gigabyte of values, most of it on disk.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.row import Row, times

PAIR = """
import numpy as np
import torch
from flax import nnx
from torch import nn

WIDTH, LAYERS, ROWS = {width}, {layers}, {rows}


class Torch(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS))

    def forward(self, x):
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        return x


class Port(nnx.Module):
    def __init__(self, rngs):
        zeros = nnx.initializers.zeros_init()
        layers = [nnx.Linear(WIDTH, WIDTH, kernel_init=zeros, rngs=rngs) for _ in range(LAYERS)]
        self.layers = nnx.List(layers)

    def __call__(self, x):
        for layer in self.layers:
            x = x + nnx.relu(layer(x))
        return x


torch_model = Torch
jax_model = Port(nnx.Rngs(0))
batch = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
"""
SIZES = {
    "10^7 parameters": ((1024, 10, 8), (), 60.0, 8.0),
    "10^9 parameters, float32": ((4096, 60, 512), ("--precision", "float32"), 1800.0, 24.0),
}


def measure(quick: bool) -> list[Row]:
    """Return seconds and gibibytes."""
    found = []
    for name, ((width, layers, rows), more, most, room) in SIZES.items():
        if quick:
            width, layers, rows = width // 64, layers // 5, 8
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pair.py"
            path.write_text(PAIR.format(width=width, layers=layers, rows=rows))
            seconds, memory = _run(["port", str(path), "--accept", *more])
        found.append(times(f"{name}: the command", "s", [seconds], ("<=", most)))
        found.append(times(f"{name}: peak memory", "GiB", [memory / 2**30], ("<=", room)))
    return found


def _run(arguments: list[str]) -> tuple[float, int]:
    """Run the command; returns its seconds and its peak memory in bytes.

    Raises:
        RuntimeError: the models of the pair are not found to be the same.
    """
    begin = time.perf_counter()
    command = [sys.executable, "-m", "lockstep", *arguments]
    process = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"lockstep {' '.join(arguments)} ended with {status}")
    return time.perf_counter() - begin, usage.ru_maxrss * 1024
