"""A training step of Wav2Vec2 with CTC, tiny, float32, 16 clips of a second; dropout, masks.

Steps are measured as `benchmarks.step` measures them: windows of batches in memory, a process a
variant, in turns. JAX's convolutions are lowered in both ways: as products with slices of their
input, and as XLA's own.
"""

from typing import Any

import numpy as np

from benchmarks import studies
from benchmarks.row import Row, ratio, times
from benchmarks.step import take_turns

WORKLOAD = "wav2vec2_ctc"
WINDOW, BATCH = 4, 16
REFERENCE, LOWERED, NATIVE = "torch-eager", "jax-jit, im2col", "jax-jit, XLA's convolution"
VARIANTS: dict[str, dict[str, Any]] = {
    REFERENCE: studies.VARIANTS["torch-eager"],
    "torch-compile": studies.VARIANTS["torch-compile"],
    LOWERED: studies.VARIANTS["jax-jit"],
    NATIVE: {"framework": "jax", "mode": "jit"},
}


def measure(quick: bool) -> list[Row]:
    """Return each variant's step, and its ratio to PyTorch eager."""
    recipe: dict[str, Any] = {"global_batch": BATCH, "model": {"lengths": 1}}
    if quick:
        recipe = {"global_batch": 4, "model": {"lengths": 1, "samples": 3200}}
    recipe["model"]["letters"] = 16
    variants = {k: v for k, v in VARIANTS.items() if not quick or k in (REFERENCE, LOWERED)}
    turns = take_turns(variants, WORKLOAD, recipe, WINDOW, *((3, 1) if quick else (30, 3)))
    rows = [
        ratio(f"{name} : {REFERENCE}", turns[name], turns[REFERENCE])
        for name in variants
        if name != REFERENCE
    ]
    return rows + [
        times(name, "ms/step", 1e3 / WINDOW * np.array(turns[name])) for name in variants
    ]
