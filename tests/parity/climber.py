"""One rank that climbs the ladder in float64: python -m tests.parity.climber REQUEST.

REQUEST is JSON: `recipe`, `variant`, `manifest`, `weights`, `steps`, `batches`, `caches`, `output`.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import engines, workloads
from lockstep.cluster.place import Place
from lockstep.datasets.reader import Reader
from lockstep.engines.contract import Job, Topology
from lockstep.parity.climb import WINDOW
from lockstep.parity.climb import climb as climbing
from lockstep.training.feed import SharedFeed, evaluation_batches
from lockstep.workloads import weights


def climb(request: dict[str, Any], topology: Topology) -> dict[str, np.ndarray]:
    """Return the trace in one precision, float64 unless the variant says otherwise."""
    manifest = Path(request["manifest"])
    reader, test = Reader(manifest, "train"), Reader(manifest, "test")
    variant = request["variant"]
    job = Job(
        workload=workloads.spec(request["recipe"]["workload"]),
        recipe=request["recipe"],
        variant=variant,
        window_steps=WINDOW,
        stored=reader.example_shape,
        topology=topology,
        caches=Path(request["caches"]),
    )
    engine = engines.start(job)
    feed = SharedFeed(job, reader, seed=0)
    state = weights.load(Path(request["weights"]))
    evaluation = evaluation_batches(job, test)
    steps, batches = request["steps"], request["batches"]
    climbed = climbing(engine, feed, evaluation, state, steps, batches)
    arrays = {f"{variant['precision']}/{name}": array for name, array in climbed}
    engine.close()
    return arrays


if __name__ == "__main__":
    here = Place.from_environment()
    here.pin()
    told = json.loads(Path(sys.argv[1]).read_text())
    found = climb(told, here.topology)
    if here.topology.rank == 0:
        np.savez(told["output"], **found)
