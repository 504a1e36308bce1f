"""What a variant's ladder is climbed with, whatever the precision."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import workloads
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.engines.contract import Job, Topology
from lockstep.training.feed import evaluation_batches
from lockstep.workloads.contract import Data


@dataclass(frozen=True, kw_only=True)
class Route:
    """A variant of a workload, and what it is shown.

    Attributes:
        recipe: complete recipe of the workload.
        variant: complete config of the variant; its precision is replaced by the ladder's.
        seed: decides the order of examples.
        manifest: of the dataset.
        initial: weights file.
        caches: folder for compiled programs.
        window_steps: of the runs, whose programs are climbed: a window's size is part of them.
    """

    recipe: Mapping[str, Any]
    variant: Mapping[str, Any]
    seed: int
    manifest: Path
    initial: Path
    caches: Path
    window_steps: int

    def job(self, precision: str, topology: Topology) -> Job:
        """Return what an engine is started with."""
        return Job(
            workload=workloads.of(self.recipe),
            recipe=self.recipe,
            # What is climbed shares its random numbers, whatever a run draws from.
            variant={**self.variant, "precision": precision, "randomness": "shared"},
            window_steps=self.window_steps,
            data=Data.of(read_manifest(self.manifest)),
            topology=topology,
            caches=self.caches.resolve(),
        )

    def evaluation(self, job: Job, most: int | None = None) -> Iterator[dict[str, np.ndarray]]:
        """Yield the batches of an evaluation, of which the last one is padded.

        Args:
            most: examples that are evaluated at most; all if None.
        """
        reader = Reader(self.manifest, "test")
        examples = min(reader.examples, most or reader.examples)
        batch = uneven(examples, job.recipe["evaluation_batch"], job.topology.devices)
        return evaluation_batches(job, reader, batch=batch, examples=examples)


def uneven(examples: int, most: int, devices: int) -> int:
    """Return how many examples a batch has if the last one of an evaluation is to be incomplete.

    The most that a multiple of the devices can be, up to `most`; more than `examples` where each
    such number divides them.
    """
    largest = min(most, examples) // devices * devices
    for batch in range(largest, 0, -devices):
        if examples % batch:
            return batch
    return (examples // devices + 1) * devices
