"""A variant's first start, measured on purpose: `python -m lockstep.training.coldstart SPEC`.

Programs are compiled into a folder of the workload, variant and scale (`spec.caches`), which no
other variant and no parity trace writes to. Before the first run of them it is empty: one start
fills it, up to the first window and one batch of an evaluation. What that took is the cold start,
kept beside the programs (`COLD`); every run then starts warm.
"""

import itertools
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lockstep import files, lock
from lockstep.interruption import INTERRUPTED, Interruption
from lockstep.training.spec import RunSpec

SCHEMA = "lockstep-cold-start/1"
COLD = "cold-start.json"
SECONDS = ("trace_seconds", "compile_seconds", "first_window_seconds")


def ensure(spec: RunSpec, start: Callable[[], int]) -> int:
    """Have the first start of what compiles made, if it has not been; returns its status, or 0.

    Blocks of other seeds that need the same programs wait meanwhile.

    Args:
        start: runs `main` on all ranks of the run.
    """
    if not _compiles(spec):
        return 0
    caches = Path(spec.caches)
    waiting = f"{caches} is being filled by another process"
    with lock.held(caches.with_name(f".{caches.name}.lock"), waiting=waiting):
        if is_known(spec):
            return 0
        files.remove(caches)  # of other code, or of a start that was interrupted
        caches.mkdir(parents=True)
        print(f"lockstep: {spec.name}: one start from an empty cache", file=sys.stderr, flush=True)
        return start()


def _compiles(spec: RunSpec) -> bool:
    return bool(spec.settings["mode"] != "eager")


def is_known(spec: RunSpec) -> bool:
    """Whether the start of what this run starts was measured, and its programs are there."""
    path = Path(spec.caches) / COLD
    return path.is_file() and files.read_json(path)["identity"] == spec.programs


def told(spec: RunSpec) -> dict[str, Any]:
    """Return `cold_start` of a run's summary: in that run for which it was measured."""
    if not _compiles(spec):
        return {"absent": "nothing is compiled"}
    if not is_known(spec):
        return {"absent": "it was not measured"}
    known = files.read_json(Path(spec.caches) / COLD)
    if known["cache"] != "cold":
        return {"absent": f"the framework says that its cache was {known['cache']}"}
    if known["run"] != spec.name:
        return {"absent": f"measured once, for {known['run']}"}
    return {name: known[name] for name in SECONDS}


def main(spec_path: Path) -> int:
    """Make the first start; returns the exit status."""
    from lockstep.datasets.reader import Reader
    from lockstep.training import begin
    from lockstep.training.feed import evaluation_batches
    from lockstep.workloads import weights

    here = begin.take_place()
    interruption = Interruption(here.deadline)
    spec = RunSpec.load(spec_path)
    job, engine = begin.engine_for(spec, here)
    feed = begin.feed_for(spec, job)
    engine.load(weights.load(Path(spec.weights)))
    preparation = begin.prepared(engine)
    windows = feed.windows(0, feed.total_steps)
    window = next(windows)
    started = time.perf_counter()
    engine.fetch(engine.train(window))
    seconds = time.perf_counter() - started
    engine.evaluate(
        itertools.islice(evaluation_batches(job, Reader(Path(spec.dataset), "test")), 1)
    )
    engine.state()
    if job.topology.rank == 0:
        known = {
            "schema": SCHEMA,
            "identity": spec.programs,
            "run": spec.name,
            "node": platform.node(),
            "cache": preparation.cache,
            "trace_seconds": preparation.trace_seconds,
            "compile_seconds": preparation.compile_seconds,
            "first_window_seconds": seconds,
        }
        files.write_json(Path(spec.caches) / COLD, known)
    windows.close()
    feed.close()
    engine.close()
    return INTERRUPTED if interruption.requested else 0


if __name__ == "__main__":
    from lockstep.training import ending

    ending.run(main, Path(sys.argv[1]))
