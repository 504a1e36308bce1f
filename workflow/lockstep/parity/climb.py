"""What one engine computes on the way up the ladder, rung by rung."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import workloads
from lockstep.datasets.reader import read_manifest
from lockstep.engines.contract import Engine, Job, Topology
from lockstep.training.feed import SharedFeed
from lockstep.workloads import weights

WINDOW = 25  # steps between two fences
GOLDEN = (5**0.5 - 1) / 2
SAMPLE = 4096  # elements of a tensor that are kept of each batch but the first


@dataclass(frozen=True, kw_only=True)
class Route:
    """What a variant's ladder is climbed with, whatever the precision.

    Attributes:
        recipe: complete recipe of the workload.
        variant: complete config of the variant; its precision is replaced by the ladder's.
        seed: decides the order of examples.
        manifest: of the dataset.
        initial: weights file.
        caches: folder for compiled programs.
    """

    recipe: Mapping[str, Any]
    variant: Mapping[str, Any]
    seed: int
    manifest: Path
    initial: Path
    caches: Path

    def job(self, precision: str, topology: Topology) -> Job:
        """Return what an engine is started with."""
        return Job(
            workload=workloads.spec(self.recipe["workload"]),
            recipe=self.recipe,
            variant={**self.variant, "precision": precision, "steps_per_dispatch": 1},
            window_steps=WINDOW,
            stored=tuple(read_manifest(self.manifest)["example_shape"]),
            topology=topology,
            caches=self.caches.resolve(),
        )


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
    """Return at most `SAMPLE` elements of a tensor, spread over all of it.

    Steps by a number without a divisor in common with the size, near its golden section: by any
    other, of a power of two say, they would be of a few output channels alone.
    """
    flat = np.ravel(tensor)
    if flat.size <= SAMPLE:
        return flat
    near = int(GOLDEN * flat.size)
    stride = next(step for step in itertools.count(near) if math.gcd(step, flat.size) == 1)
    return flat[np.arange(SAMPLE) * stride % flat.size]


def _named(rung: str, state: weights.State) -> Iterator[tuple[str, np.ndarray]]:
    for name, array in state.items():
        yield f"{rung}/{name}", array
