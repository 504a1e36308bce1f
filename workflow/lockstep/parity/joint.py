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
from pathlib import Path

import numpy as np

from lockstep.cluster import place
from lockstep.cluster.launch import launch
from lockstep.datasets.reader import Reader
from lockstep.errors import UserError
from lockstep.parity import OVER_TWO
from lockstep.parity.climb import Route, climb
from lockstep.training import ending
from lockstep.training.feed import SharedFeed, evaluation_batches
from lockstep.training.interruption import die_with_parent
from lockstep.workloads import weights

PROCESSES, STEPS, BATCH = 2, 2, 32
PATHS = ("manifest", "initial", "caches")
OUTPUT = "trace.npz"


def climbed(route: Route, threads: int) -> dict[str, np.ndarray]:
    """Climb with one variant over two processes; returns arrays by ``float64x2/RUNG/NAME``.

    Args:
        route: its batches are made smaller.
        threads: for both processes together.

    Raises:
        UserError: they did not end well; why stands above.
    """
    batch = min(BATCH, route.recipe["global_batch"]) // PROCESSES * PROCESSES
    recipe = {**route.recipe, "global_batch": batch, "evaluation_batch": batch}
    paths = {name: str(getattr(route, name).resolve()) for name in PATHS}
    with tempfile.TemporaryDirectory(prefix="lockstep-") as scratch:
        path = Path(scratch) / "request.json"
        path.write_text(json.dumps({**vars(route), "recipe": recipe, **paths}))
        command = [sys.executable, "-m", "lockstep.parity.joint", str(path)]
        status = launch(command, processes=PROCESSES, threads=threads)
        if status:
            raise UserError(
                f"the ladder over {PROCESSES} processes ended with status {status}; what they "
                "said stands above"
            )
        with np.load(path.with_name(OUTPUT)) as stored:
            return {f"{OVER_TWO}/{name}": array for name, array in stored.items()}


def main(path: Path) -> int:
    """Climb as one of the ranks; the first one writes what it computed beside the request."""
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    here = place.Place.from_environment()
    die_with_parent(here.parent)
    here.pin()
    from lockstep import engines  # here, as frameworks look at the environment once

    told = json.loads(path.read_bytes())
    route = Route(**{**told, **{name: Path(told[name]) for name in PATHS}})
    job = route.job("float64", here.topology)
    engine = engines.start(job)
    feed = SharedFeed(job, Reader(route.manifest, "train"), route.seed)
    # One batch: that of a large test split takes minutes.
    evaluation = itertools.islice(evaluation_batches(job, Reader(route.manifest, "test")), 1)
    arrays = dict(climb(engine, feed, evaluation, weights.load(route.initial), STEPS))
    engine.close()
    if here.topology.rank == 0:
        np.savez(path.with_name(OUTPUT), **arrays)  # type: ignore[arg-type]
    return 0


if __name__ == "__main__":
    ending.run(main, Path(sys.argv[1]))
