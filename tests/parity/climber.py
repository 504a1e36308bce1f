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
from lockstep.engines.contract import Engine, Topology
from lockstep.parity import position
from lockstep.parity.climb import climb as climbing
from lockstep.parity.joint import PATHS
from lockstep.parity.route import Route
from lockstep.training.feed import SharedFeed
from lockstep.workloads import weights


def route_of(request: dict[str, Any]) -> Route:
    """Return the route that a request describes."""
    names = ("recipe", "variant", "seed", "window_steps")
    paths = {name: Path(request[name]) for name in PATHS}
    return Route(**{name: request[name] for name in names}, **paths)


def started(request: dict[str, Any]) -> tuple[Engine, SharedFeed]:
    """Return a request's engine with its initial weights, in float64, and its batches."""
    route = route_of(request)
    job = route.job("float64", Topology())
    engine = engines.start(job)
    engine.load(weights.load(route.initial))
    return engine, SharedFeed(job, Reader(route.manifest, "train"), route.seed)


def changed_over(first: dict[str, Any], second: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return the losses of steps 25 to 49: by `second` from the state of `first`, and by `first`
    alone.
    """
    engine, feed = started(first)
    engine.fetch(engine.train(feed.window(0, 25)))
    begun = engine.state()
    expected, _ = engine.fetch(engine.train(feed.window(25, 25)))
    other, own_feed = started(second)
    other.load(begun)
    found, _ = other.fetch(other.train(own_feed.window(25, 25)))
    return found, expected


def climb(request: dict[str, Any], topology: Topology) -> dict[str, np.ndarray]:
    """Return the trace in one precision, float64 unless the variant says otherwise."""
    route = route_of(request)
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
