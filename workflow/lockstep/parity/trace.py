"""One variant's trace: what it computes on the way up the ladder, made in its own image.

A trace is an ``.npz`` of arrays named ``PRECISION/RUNG/…``, for the precisions `float64`,
`float32` and `twin` (float32 from weights moved by a few units in the last place):

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
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import engines, files, workloads
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.engines.contract import Engine, Job, Topology
from lockstep.training.feed import SharedFeed, check, evaluation_batches
from lockstep.workloads import weights

WINDOW = 25  # steps between two fences of a trace
PRECISIONS = ("float64", "float32", "twin")
BATCHES = 8  # that float32 gradients are compared on where a unit within rounding of zero may turn
SAMPLE = 4096  # elements of a tensor that are kept of each but the first


def trace(
    *,
    recipe: Mapping[str, Any],
    variant: Mapping[str, Any],
    seed: int,
    manifest: Path,
    initial: Path,
    steps: int,
    float32_steps: int,
    caches: Path,
    output: Path | None,
    topology: Topology | None = None,
) -> None:
    """Climb the ladder with one variant and write its trace.

    Args:
        recipe: complete recipe of the workload.
        variant: complete config of the variant; its precision is replaced by the ladder's.
        seed: decides the order of examples.
        manifest: of the dataset.
        initial: weights file.
        steps: trained in float64.
        float32_steps: trained in float32 and by the twin.
        caches: folder for compiled programs.
        output: file to write; None on ranks that write nothing.
        topology: of this process; a single one if None.
    """
    described = read_manifest(manifest)
    reader, test = Reader(manifest, "train"), Reader(manifest, "test")
    state = weights.load(initial)
    firm_steps = workloads.spec(recipe["workload"]).firm_steps
    arrays: dict[str, np.ndarray] = {}
    about: dict[str, Any] = {
        "variant": dict(variant),
        "seed": seed,
        "weights": weights.digest(state),
        "firm_steps": firm_steps,
    }
    for precision in PRECISIONS:
        real = "float32" if precision == "twin" else precision
        job = Job(
            workload=workloads.spec(recipe["workload"]),
            recipe=recipe,
            variant={**variant, "precision": real, "steps_per_dispatch": 1},
            window_steps=WINDOW,
            stored=reader.example_shape,
            topology=topology or Topology(),
            caches=caches.resolve(),
        )
        check(job, described)
        engine = engines.start(job)
        start = weights.perturbed(state, seed) if precision == "twin" else state
        total = steps if precision == "float64" else float32_steps
        feed = SharedFeed(job, reader, seed)
        batches = BATCHES if real == "float32" and firm_steps <= 1 else 1
        evaluation = evaluation_batches(job, test)
        for name, array in climb(engine, feed, evaluation, start, total, batches):
            arrays[f"{precision}/{name}"] = array
        about[precision] = engine.facts()
        if precision == PRECISIONS[-1]:
            engine.close()
    if output is not None:
        arrays["about"] = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
        with files.atomic(output) as temporary, open(temporary, "wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]  # its stub takes names for flags


def climb(
    engine: Engine,
    feed: SharedFeed,
    evaluation: Iterable[Mapping[str, np.ndarray]],
    state: weights.State,
    steps: int,
    batches: int = 1,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what an engine computes on each rung, by the names above.

    Args:
        batches: whose gradients are told, at most those of an epoch.
    """
    engine.load(state)
    engine.prepare()
    engine.load(state)
    yield from _named("weights", engine.state())
    probe = engine.probe(feed.window(0, 1))
    yield "forward/logits", probe.pop("logits")
    yield "loss/loss", probe.pop("loss")
    for name, gradient in probe.items():
        yield f"gradient/{name.removeprefix('grad/')}", gradient
    for k in range(1, min(batches, feed.steps_per_epoch)):
        for name, gradient in engine.probe(feed.window(k, 1)).items():
            if name.startswith("grad/"):
                yield f"gradients/{k}/{name.removeprefix('grad/')}", _sample(gradient)

    losses, checksums = engine.fetch(engine.train(feed.window(0, 1)))
    yield from _named("step", engine.state())
    all_losses, all_checksums = [losses], [checksums]
    done = 1
    while done < steps:
        count = min(WINDOW, steps - done)
        losses, checksums = engine.fetch(engine.train(feed.window(done, count)))
        all_losses.append(losses)
        all_checksums.append(checksums)
        done += count
    yield "steps/loss", np.concatenate(all_losses)
    yield "steps/checksum", np.concatenate(all_checksums)
    yield from _named("final", engine.state())
    sums = engine.evaluate(evaluation)
    examples = sums.pop("examples")
    yield "evaluation/examples", np.array(examples)
    for name, value in sums.items():
        yield f"evaluation/{name}", np.array(value / examples)


def _sample(tensor: np.ndarray) -> np.ndarray:
    """Return at most `SAMPLE` elements of a tensor, evenly spaced."""
    flat = np.ravel(tensor)
    return flat[:: max(1, -(-flat.size // SAMPLE))]


def _named(rung: str, state: weights.State) -> Iterator[tuple[str, np.ndarray]]:
    for name, array in state.items():
        yield f"{rung}/{name}", array
