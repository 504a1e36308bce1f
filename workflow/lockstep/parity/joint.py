"""The ladder over two devices: `python -m lockstep.parity.joint REQUEST`, once a rank.

How losses, gradients, statistics and an evaluation are shared between devices shows on several of
them alone. So where a study has runs over several, each workload climbs over two as well: in the
variant's own topology (two processes, or one that drives both), in float64 and on the CPU, wherever
the study runs, by a few steps of a small batch, since only how it is shared is looked at. At an
epoch's end the two have unequal numbers of real examples. What is computed has the precision
`float64x2`.
"""

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
from lockstep.interruption import die_with_parent
from lockstep.parity import OVER_TWO, position
from lockstep.parity.climb import climb
from lockstep.parity.route import Route
from lockstep.training import ending
from lockstep.training.feed import SharedFeed
from lockstep.workloads import weights

DEVICES, BATCH = 2, 32
EVALUATED = 3 * BATCH + 1  # examples: the whole of a large test split would take minutes
PATHS = ("manifest", "initial", "caches")
OUTPUT = "trace.npz"


def climbed(route: Route, steps: int, threads: int) -> dict[str, np.ndarray]:
    """Climb with one variant over two devices; returns arrays by ``float64x2/RUNG/NAME``.

    Args:
        route: its batches are made smaller.
        steps: trained in a row.
        threads: for both devices together.

    Raises:
        UserError: they did not end well; why stands above.
    """
    examples = Reader(route.manifest, "train").examples
    batch = _batch(examples, min(BATCH, route.recipe["global_batch"]))
    recipe = {**route.recipe, "global_batch": batch, "evaluation_batch": batch}
    paths = {name: str(getattr(route, name).resolve()) for name in PATHS}
    processes = DEVICES if route.variant["process"] == "device" else 1
    with tempfile.TemporaryDirectory(prefix="lockstep-") as scratch:
        path = Path(scratch) / "request.json"
        path.write_text(json.dumps([{**vars(route), "recipe": recipe, **paths}, steps]))
        command = [sys.executable, "-m", "lockstep.parity.joint", str(path)]
        status = launch(command, processes=processes, threads=threads, devices=DEVICES // processes)
        if status:
            raise UserError(
                f"the ladder over {DEVICES} devices ended with status {status}; what was said "
                "stands above"
            )
        with np.load(path.with_name(OUTPUT)) as stored:
            return {f"{OVER_TWO}/{name}": array for name, array in stored.items()}


def _batch(examples: int, most: int) -> int:
    """Return an even batch of which an epoch's last one is shared out unequally, if there is one.

    Best so that both devices have some of its examples; the largest such.
    """
    even = range(most // DEVICES * DEVICES, 0, -DEVICES)
    return max(even, key=lambda batch: (examples % batch > batch // 2, examples % batch > 0, batch))


def main(path: Path) -> int:
    """Climb as one of the ranks; the first one writes what it computed beside the request."""
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    here = place.Place.from_environment()
    die_with_parent(here.parent)
    here.pin()
    from lockstep import engines  # here, as frameworks look at the environment once

    told, steps = json.loads(path.read_bytes())
    route = Route(**{**told, **{name: Path(told[name]) for name in PATHS}})
    job = route.job("float64", here.topology)
    engine = engines.start(job)
    feed = SharedFeed(job, Reader(route.manifest, "train"), route.seed)
    evaluation = route.evaluation(job, EVALUATED)
    state = weights.load(route.initial)
    general = position.general(job.workload, route.recipe, route.seed)
    arrays = dict(climb(engine, feed, evaluation, state, general, steps))
    engine.close()
    if here.topology.rank == 0:
        np.savez(path.with_name(OUTPUT), **arrays)  # type: ignore[arg-type]
    return 0


if __name__ == "__main__":
    ending.run(main, Path(sys.argv[1]))
