"""The ladder over two processes: `python -m lockstep.parity.joint REQUEST`, once a rank.

A batch normalisation takes its statistics of all processes' examples or of each one's own, which
is the same on one process. So where a study has runs of several, a workload with buffers climbs
over two as well: in float64 and on the CPU, wherever the study runs, by a few steps of a small
batch, since only how it is shared is looked at. What it computes has the precision `float64x2`.
"""

import itertools
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import workloads
from lockstep.cluster import place
from lockstep.cluster.launch import launch
from lockstep.datasets.reader import Reader
from lockstep.engines.contract import Job
from lockstep.errors import UserError
from lockstep.parity.climb import WINDOW, climb
from lockstep.training import worker
from lockstep.training.feed import SharedFeed, evaluation_batches
from lockstep.training.interruption import die_with_parent
from lockstep.workloads import weights

PRECISION = "float64x2"
PROCESSES, STEPS, BATCH = 2, 2, 32


def climbed(
    recipe: Mapping[str, Any],
    variant: Mapping[str, Any],
    seed: int,
    manifest: Path,
    initial: Path,
    caches: Path,
    threads: int,
) -> dict[str, np.ndarray]:
    """Climb with one variant over two processes; returns arrays by ``float64x2/RUNG/NAME``.

    Args:
        recipe: complete recipe of the workload; its batches are made smaller.
        threads: for both processes together.

    Raises:
        UserError: they did not end well; why stands above.
    """
    batch = min(BATCH, recipe["global_batch"]) // PROCESSES * PROCESSES
    with tempfile.TemporaryDirectory(prefix="lockstep-") as scratch:
        path, output = Path(scratch) / "request.json", Path(scratch) / "trace.npz"
        request = {
            "recipe": {**recipe, "global_batch": batch, "evaluation_batch": batch},
            "variant": {**variant, "precision": "float64", "steps_per_dispatch": 1},
            "seed": seed,
            "manifest": str(manifest.resolve()),
            "initial": str(initial.resolve()),
            "caches": str(caches.resolve()),
            "output": str(output),
        }
        path.write_text(json.dumps(request))
        command = [sys.executable, "-m", "lockstep.parity.joint", str(path)]
        status = launch(command, processes=PROCESSES, threads=threads)
        if status:
            raise UserError(
                f"the ladder over {PROCESSES} processes ended with status {status}; what they "
                "said stands above"
            )
        with np.load(output) as stored:
            return {f"{PRECISION}/{name}": array for name, array in stored.items()}


def main(path: Path) -> int:
    """Climb as one of the ranks; the first one writes what it computed."""
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    here = place.Place.from_environment()
    die_with_parent(here.parent)
    here.pin()
    from lockstep import engines  # here, as frameworks look at the environment once

    request = json.loads(path.read_bytes())
    manifest = Path(request["manifest"])
    reader, test = Reader(manifest, "train"), Reader(manifest, "test")
    job = Job(
        workload=workloads.spec(request["recipe"]["workload"]),
        recipe=request["recipe"],
        variant=request["variant"],
        window_steps=WINDOW,
        stored=reader.example_shape,
        topology=here.topology,
        caches=Path(request["caches"]),
    )
    engine = engines.start(job)
    feed = SharedFeed(job, reader, request["seed"])
    # One batch: that of a large test split takes minutes.
    evaluation = list(itertools.islice(evaluation_batches(job, test), 1))
    state = weights.load(Path(request["initial"]))
    arrays = dict(climb(engine, feed, evaluation, state, STEPS))
    engine.close()
    if here.topology.rank == 0:
        np.savez(request["output"], **arrays)  # type: ignore[arg-type]
    return 0


if __name__ == "__main__":
    worker.run(main, Path(sys.argv[1]))
