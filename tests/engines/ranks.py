"""A loss that looks at the whole batch, over several devices: python -m tests.engines.ranks …

Arguments: framework, the folder of the page's files with their dataset, and a file to write.
"""

import importlib
import sys
from pathlib import Path

import numpy as np

from lockstep import engines, workloads
from lockstep.cluster.place import Place
from lockstep.datasets.reader import Reader
from lockstep.engines.contract import Topology
from lockstep.training.feed import SharedFeed
from lockstep.workloads import weights
from tests import letters

MODULES = {"torch": ("torch_model", "ranks_torch"), "jax": ("flax_model", "ranks_flax")}


def probed(side: str, folder: Path, topology: Topology) -> dict[str, np.ndarray]:
    """Return what a probe gives, with a second term: how far each row's loss is from the mean."""
    workloads.adopt(folder / "letters_lm", where="test")
    model, ranks = MODULES[side]
    functions = importlib.import_module(f"lockstep.workloads.letters_lm.{model}")
    total = importlib.import_module(f"lockstep.workloads.{ranks}").sum_over_ranks
    sound = functions.loss

    def loss(outputs, batch, recipe):
        terms = sound(outputs, batch, recipe)
        mean = total((terms["loss"] * batch["real"]).sum()) / recipe["global_batch"]
        return {**terms, "spread": (terms["loss"] - mean) ** 2}

    functions.loss = loss
    job = letters.job(folder / "data" / "manifest.json", side, topology=topology)
    engine = engines.start(job)
    engine.load(weights.initial(job.workload, job.recipe["model"], 0))
    feed = SharedFeed(job, Reader(folder / "data" / "manifest.json", "train"), 0)
    found = engine.probe(feed.window(0, 1))
    functions.loss = sound
    return {name: array for name, array in found.items() if name.startswith(("loss", "grad/"))}


if __name__ == "__main__":
    here = Place.from_environment()
    here.pin()
    made = probed(sys.argv[1], Path(sys.argv[2]), here.topology)
    if here.topology.rank == 0:
        np.savez(sys.argv[3], **made)
