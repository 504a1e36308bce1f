"""One variant's trace: what it computes on the way up the ladder, made in its own image.

A trace is an ``.npz`` of arrays named ``PRECISION/RUNG/…``, for the precisions `float64`, `float32`
and `twin` (float32 from weights moved by a few units in the last place), for the variant's own
precision if that is another, and for `float64x2` where a study has runs over several devices
(`lockstep.parity.joint`). The programs are those of the variant's runs: steps per dispatch and
windows too.

`weights/NAME`   the state right after loading,
`batch/checksum`, `steps/checksum`, `edges/checksum`   of each batch,
`random/words`, `random/kept`   random numbers and a mask of the first batch's examples,
`layers/LAYER`   a sample of what each layer gives for the first batch,
`forward/OUTPUT`, `loss/loss`, `loss/TERM`, `gradient/NAME`   of the first batch,
`gradients/K/NAME`   of further batches, in float32 where units may turn: a sample of each tensor,
`input/NAME`     a sample of the gradient with respect to the first batch's floating inputs,
`step/NAME`      the state after one optimizer step, made at the learning rate `rate/first`,
`steps/loss`     of every step,
`final/NAME`     the state after the last step,
`edge/…`         losses of the steps around an epoch's end and of a run's last one, in float64 also
                 of a step of each length that was not met before; the state then,
`evaluation/NAME`   the loss and each metric of that state on the test split, and its examples,
`after/…`        loss and state of a step after the evaluation; the loss of another one, and that of
                 an evaluation right behind it,
`prepared/NAME`  a state in general position after the engine has prepared its programs with it,
`restored/NAME`, `general/…`   such a state (`lockstep.parity.position`) given back after loading;
                 loss, gradient (and its whole norm) and state of a step from it, the loss of an
                 evaluation before it, and `general/later/…` of a second step,
`canary/…`       checksums and losses of disturbed batches (`lockstep.parity.canary`),

and `about`, the engine's facts, what was asked for and how firmly to judge it, as JSON. Of states
but the first two a sample of each tensor is kept.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import engines, files, terminal, workloads
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.engines.contract import Topology
from lockstep.parity import TRACE, joint, position
from lockstep.parity.climb import climb
from lockstep.parity.route import Route
from lockstep.training.feed import SharedFeed, check
from lockstep.workloads import optimizers, weights

BATCHES = 8  # that float32 gradients are compared on where a unit within rounding of zero may turn


def trace(
    route: Route,
    *,
    steps: int,
    float32_steps: int,
    several_steps: int,
    threads: int,
    output: Path,
) -> None:
    """Climb the ladder with one variant and write its trace.

    Args:
        steps: trained in float64.
        float32_steps: trained in every other precision.
        several_steps: trained over two devices; 0 to climb on one alone.
        threads: for several processes together.
        output: file to write.

    Raises:
        UserError: the dataset does not suit the workload, the model draws random numbers of its
            own, or two processes did not end well.
    """
    described = read_manifest(route.manifest)
    reader = Reader(route.manifest, "train")
    state = weights.load(route.initial)
    workload = workloads.of(route.recipe)
    general = position.general(workload, route.recipe, route.seed)
    settings, trained = route.recipe["optimizer"], workload.trained(route.recipe["model"])
    shares = {p.name: optimizers.share(settings, p) for p in trained}
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {
        "schema": TRACE,
        "variant": dict(route.variant),
        "seed": route.seed,
        "weights": weights.digest(state),
        "firm_steps": workload.firm_steps,
        "optimizer": settings,
        "shares": {n: [share.rate, share.decay, share.group] for n, share in shares.items()},
        "absent": {},
    }
    own = route.variant["precision"]
    engine = None
    for precision in dict.fromkeys(("float64", "float32", "twin", own)):
        real = "float32" if precision == "twin" else precision
        job = route.job(real, Topology())
        check(job, described)
        engine = engines.start(job)
        about[precision] = facts = engine.facts()
        about["device"] = facts["device"]
        if precision == "tf32" and facts["device"] == "cpu":
            about["absent"][precision] = "there is no GPU, and only GPUs compute in TF32"
            continue
        start = weights.perturbed(state, route.seed) if precision == "twin" else state
        total = steps if precision == "float64" else float32_steps
        feed = SharedFeed(job, reader, route.seed)
        batches = BATCHES if real == "float32" and workload.firm_steps <= 1 else 1
        evaluation = route.evaluation(job)
        with terminal.bar(f"parity of {output.stem} in {precision}", total) as advance:
            rungs = climb(engine, feed, evaluation, start, general, total, batches, advance)
            for name, array in rungs:
                arrays[f"{precision}/{name}"] = array
    if not any(name.startswith("float64/input/") for name in arrays):
        about["absent"]["input"] = "the model reads integers alone, which have no gradient"
    if engine is not None:
        engine.close()
    if several_steps:
        arrays |= joint.climbed(route, several_steps, threads)
    arrays["about"] = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    with files.atomic(output) as temporary, open(temporary, "wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]  # its stub takes names for flags
