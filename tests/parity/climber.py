"""One rank that climbs the ladder in float64: python -m tests.parity.climber REQUEST.

REQUEST is JSON: a route's fields, `steps`, `batches`, `output`, and `local_means` for a fault: the
loss of each PyTorch process is divided by its own weight, and the quotients are averaged.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import engines
from lockstep.cluster.launch import launch
from lockstep.cluster.place import Place
from lockstep.datasets.reader import Reader
from lockstep.engines.contract import Topology
from lockstep.parity import position
from lockstep.parity.climb import climb as climbing
from lockstep.parity.joint import PATHS
from lockstep.parity.route import Route
from lockstep.training.feed import SharedFeed
from lockstep.workloads import weights


def climb(request: dict[str, Any], topology: Topology) -> dict[str, np.ndarray]:
    """Return the trace in one precision, float64 unless the variant says otherwise."""
    names = ("recipe", "variant", "seed", "window_steps")
    paths = {name: Path(request[name]) for name in PATHS}
    route = Route(**{name: request[name] for name in names}, **paths)
    precision = route.variant["precision"]
    job = route.job(precision, topology)
    engine = engines.start(job)
    feed = SharedFeed(job, Reader(route.manifest, "train"), route.seed)
    state, steps, batches = weights.load(route.initial), request["steps"], request["batches"]
    general = position.general(job.workload, route.recipe, route.seed)
    climbed = climbing(engine, feed, route.evaluation(job), state, general, steps, batches)
    several = "x2" * (precision == "float64" and topology.devices > 1)
    arrays = {f"{precision}{several}/{name}": array for name, array in climbed}
    engine.close()
    return arrays


def climbed(request: dict[str, Any], folder: Path, processes: int, threads: int) -> dict:
    """Return the trace that as many processes make; more than one are started by the launcher."""
    if processes == 1:
        return climb(request, Topology())
    path, output = folder / "request.json", folder / "trace.npz"
    path.write_text(json.dumps({**request, "output": str(output)}))
    command = [sys.executable, "-m", "tests.parity.climber", str(path)]
    assert launch(command, processes=processes, threads=threads) == 0
    with np.load(output) as stored:
        return dict(stored)


def local_means() -> None:
    """Divide by a rank's own weight, as averaging the ranks' mean losses would."""
    from lockstep.engines.torch_engine import TorchEngine

    sound = TorchEngine.terms

    def terms(self, outputs, batch, weight):
        units = (
            batch["counts"].sum(1)
            if "counts" in batch
            else self.functions.loss(outputs, batch, self.job.recipe)["ctc"] > 0
        )
        own = (units * batch["real"]).sum()
        return sound(self, outputs, batch, self.topology.world_size * own)

    TorchEngine.terms = terms


if __name__ == "__main__":
    here = Place.from_environment()
    here.pin()
    told = json.loads(Path(sys.argv[1]).read_text())
    if told.get("local_means"):
        local_means()
    found = climb(told, here.topology)
    if here.topology.rank == 0:
        np.savez(told["output"], **found)
