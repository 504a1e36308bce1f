"""How a process of a run begins: its place, its engine, its batches."""

from pathlib import Path

from lockstep import workloads
from lockstep.cluster import place
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.engines.contract import Engine, Job
from lockstep.interruption import die_with_parent
from lockstep.training.feed import Feed, SharedFeed, check
from lockstep.training.spec import RunSpec
from lockstep.workloads.contract import Data


def take_place() -> place.Place:
    """Take the place that the launcher gave to this process, before anything computes."""
    here = place.Place.from_environment()
    die_with_parent(here.parent)
    here.pin()
    here.announce()
    return here


def engine_for(spec: RunSpec, here: place.Place) -> tuple[Job, Engine]:
    """Import the run's framework, and return the job with an engine that has no state yet.

    Raises:
        UserError: the dataset does not suit the workload.
    """
    manifest = read_manifest(Path(spec.dataset))

    from lockstep import engines  # here, so that its import is timed

    job = Job(
        workload=workloads.of(spec.recipe),
        recipe=spec.recipe,
        variant=spec.settings,
        window_steps=spec.window_steps,
        data=Data.of(manifest),
        topology=here.topology,
        caches=Path(spec.caches).resolve(),
    )
    check(job, manifest)
    return job, engines.start(job)


def feed_for(spec: RunSpec, job: Job) -> Feed:
    """Return what gives the run its windows."""
    manifest = Path(spec.dataset)
    if spec.settings["input"] == "shared":
        return SharedFeed(job, Reader(manifest, "train"), spec.seed)
    from lockstep.training.native_feed import NativeFeed

    return NativeFeed(job, manifest, spec.seed)
