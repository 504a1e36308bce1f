"""One variant's trace: what it computes on the way up the ladder, made in its own image.

A trace is an ``.npz`` of arrays named ``PRECISION/RUNG/…``, for the precisions `float64`,
`float32` and `twin` (float32 from weights moved by a few units in the last place), and
`float64x2` where processes share more than gradients (`lockstep.parity.joint`):

`weights/NAME`   the state right after loading,
`forward/logits`, `loss/loss`, `gradient/NAME`   of the first batch,
`gradients/K/NAME`   of further batches, in float32 where units may turn: a sample of each tensor,
`step/NAME`      the state after one optimizer step,
`steps/loss`, `steps/checksum`   of every step,
`final/NAME`     the state after the last step,
`evaluation/NAME`   the loss and each metric of that state on the test split, and its examples,

and `about`, the engine's facts, what was asked for and how firmly to judge it, as JSON.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import engines, files, workloads
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.engines.contract import Topology
from lockstep.parity import joint
from lockstep.parity.climb import Route, climb
from lockstep.training.feed import SharedFeed, check, evaluation_batches
from lockstep.workloads import weights

PRECISIONS = ("float64", "float32", "twin")
BATCHES = 8  # that float32 gradients are compared on where a unit within rounding of zero may turn


def trace(
    route: Route,
    *,
    steps: int,
    float32_steps: int,
    threads: int,
    several: bool,
    output: Path,
) -> None:
    """Climb the ladder with one variant and write its trace.

    Args:
        steps: trained in float64.
        float32_steps: trained in float32 and by the twin.
        threads: for several processes together.
        several: climb over two processes, too.
        output: file to write.

    Raises:
        UserError: the dataset does not suit the workload, or the two processes did not end well.
    """
    described = read_manifest(route.manifest)
    reader, test = (Reader(route.manifest, split) for split in ("train", "test"))
    state = weights.load(route.initial)
    firm_steps = workloads.spec(route.recipe["workload"]).firm_steps
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {
        "variant": dict(route.variant),
        "seed": route.seed,
        "weights": weights.digest(state),
        "firm_steps": firm_steps,
    }
    for precision in PRECISIONS:
        real = "float32" if precision == "twin" else precision
        job = route.job(real, Topology())
        check(job, described)
        engine = engines.start(job)
        start = weights.perturbed(state, route.seed) if precision == "twin" else state
        total = steps if precision == "float64" else float32_steps
        feed = SharedFeed(job, reader, route.seed)
        batches = BATCHES if real == "float32" and firm_steps <= 1 else 1
        evaluation = evaluation_batches(job, test)
        for name, array in climb(engine, feed, evaluation, start, total, batches):
            arrays[f"{precision}/{name}"] = array
        about[precision] = engine.facts()
        if precision == PRECISIONS[-1]:
            engine.close()
    if several:
        arrays |= joint.climbed(route, threads)
    arrays["about"] = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    with files.atomic(output) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]  # its stub takes names for flags
