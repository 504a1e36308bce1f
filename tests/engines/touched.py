"""Steps that change only the rows that are looked up, over several devices, and what is exchanged.

    python -m tests.engines.touched REQUEST

REQUEST is JSON: `side`, `manifest`, `steps`, `output`.
"""

import json
import re
import sys
from pathlib import Path

import numpy as np

from lockstep import engines
from lockstep.cluster.place import Place
from lockstep.datasets.reader import Reader
from lockstep.engines.contract import Engine, Topology
from lockstep.training.feed import SharedFeed
from lockstep.workloads import weights
from tests import click_logs

ROWS = 5000  # of each table: many more than a batch looks up
COLLECTIVE = re.compile(r"= (.*?) (?:all-reduce|all-gather|reduce-scatter)(?:-start)?\(")


def trained(side: str, manifest: Path, steps: int, topology: Topology) -> dict[str, np.ndarray]:
    """Return losses, the state afterwards, and the elements of the largest sum over devices."""
    changes = {"model": {"tables": [ROWS] * click_logs.LOOKUPS}}
    job = click_logs.job(manifest, side, topology=topology, **changes)
    engine = engines.start(job)
    feed = SharedFeed(job, Reader(manifest, "train"), 0)
    engine.load(weights.initial(job.workload, job.recipe["model"], 0))
    exchanged = _watch(engine) if topology.devices > 1 and side == "torch" else []
    engine.prepare()
    if topology.devices > 1 and side == "jax":
        exchanged = _sizes(engine.programs[0, 1].as_text())
    losses, checksums = engine.fetch(engine.train(feed.window(0, steps)))
    probe = {n: a for n, a in engine.probe(feed.window(0, 1)).items() if n.startswith("grad/")}
    found = {"losses": losses, "checksums": checksums, **engine.state(), **probe}
    return {**found, "largest": np.array(max(exchanged, default=0))}


def _watch(engine: Engine) -> list[int]:
    """Note the elements of every bucket that DistributedDataParallel sums, and of every gather."""
    import torch.distributed as dist

    sizes: list[int] = []

    def hook(_, bucket):
        sizes.append(bucket.buffer().numel())
        total = bucket.buffer() / dist.get_world_size()
        work = dist.all_reduce(total, async_op=True)
        return work.get_future().then(lambda future: future.value()[0])

    engine.model.register_comm_hook(None, hook)
    sound = dist.all_gather

    def gather(parts, own):
        sizes.append(own.numel() * len(parts))
        return sound(parts, own)

    dist.all_gather = gather
    return sizes


def _sizes(text: str) -> list[int]:
    """Return the elements of what each collective operation of a compiled program gives."""
    found = []
    for line in text.splitlines():
        for shapes in COLLECTIVE.findall(line):
            for shape in re.findall(r"\[([\d,]*)\]", shapes):
                found.append(int(np.prod([int(n) for n in shape.split(",") if n], dtype=np.int64)))
    assert found, "a step over two devices exchanges something"
    return found


if __name__ == "__main__":
    here = Place.from_environment()
    here.pin()
    told = json.loads(Path(sys.argv[1]).read_text())
    made = trained(told["side"], Path(told["manifest"]), told["steps"], here.topology)
    if here.topology.rank == 0:
        np.savez(told["output"], **made)
