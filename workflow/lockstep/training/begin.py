"""How a process of a run begins: its place, its engine, its batches."""

import time
from dataclasses import replace
from pathlib import Path

from lockstep import workloads
from lockstep.cluster import place
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.engines.contract import Engine, Job, Preparation
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


def prepared(engine: Engine) -> Preparation:
    """Prepare an engine, and count all of the time that this took.

    What an engine tells of is the tracing; all else is compilation, or what first use takes. By its
    own clock a framework could leave out a program that it compiles beside the step's.
    """
    begin = time.perf_counter()
    told = engine.prepare()
    seconds = time.perf_counter() - begin
    return replace(told, compile_seconds=seconds - told.trace_seconds)
