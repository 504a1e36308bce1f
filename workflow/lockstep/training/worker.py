"""One process of a run: `python -m lockstep.training.worker SPEC`.

Started by the launcher, once a rank, with its place in the environment (`lockstep.cluster.place`).
Exit status: 0 finished, 2 a mistake that a person can mend, `INTERRUPTED` stopped at a checkpoint,
`FAILED_RUN` the run failed and its record says why, `OUT_OF_MEMORY` as it says, else 1.
"""

import os
import sys
import time
from pathlib import Path

from lockstep import files
from lockstep.cluster import place
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.engines.contract import Engine, Job, Preparation, Topology
from lockstep.interruption import FAILED_RUN, INTERRUPTED, Interruption
from lockstep.training import begin, coldstart, ending, loop, records, seal
from lockstep.training.feed import evaluation_batches, total_steps
from lockstep.training.resumption import Saver, restore
from lockstep.training.spec import RunSpec
from lockstep.training.tracking import Tracking
from lockstep.training.watch import Watch
from lockstep.workloads import weights


def main(spec_path: Path) -> int:
    """Train a run from its newest checkpoint to its end; returns the exit status."""
    here = begin.take_place()
    interruption = Interruption(here.deadline)
    spec = RunSpec.load(spec_path)
    job, engine = begin.engine_for(spec, here)
    status = _run(spec, job, engine, interruption, time.time() - here.started)
    engine.close()  # all ranks together: one that fails must not wait for the others (`_leave`)
    return status


def _run(
    spec: RunSpec,
    job: Job,
    engine: Engine,
    interruption: Interruption,
    seconds: float,
) -> int:
    """Train in a process that took so many seconds to start."""
    manifest = Path(spec.dataset)
    progress, state = restore(spec)
    progress.clock.add("import", seconds)
    # The engine will have a copy: of large tables there is room for one more, and not for long.
    begun, resumed = weights.load(Path(spec.weights)), state is not None
    initial = weights.digest(begun)
    state = begun if state is None else state
    del begun
    with progress.clock("staging"):
        feed = begin.feed_for(spec, job)
        test = Reader(manifest, "test")
        engine.load(state)
    del state
    total = total_steps(spec.recipe, feed.steps_per_epoch)
    preparation = begin.prepared(engine)
    progress.clock.add("trace", preparation.trace_seconds)
    progress.clock.add("compile", preparation.compile_seconds)

    chief = job.topology.rank == 0
    tracking = Tracking(spec, total, progress.step) if chief else None
    watch = Watch(
        os.sched_getaffinity(0), progress.watched, problem=_unwatchable(spec, job.topology)
    )
    saver = Saver(spec, engine, interruption, chief, progress.step, len(watch.cpus))
    if tracking and resumed:
        other = (
            " from another run's checkpoint" if progress.resumed_from and not spec.attempt else ""
        )
        tracking.say(f"resumes at step {progress.step} of {total}{other}")
    plan = loop.Plan(
        total_steps=total,
        attempt=spec.attempt,
        evaluate_every=spec.recipe["evaluate_every"],
        evaluation=lambda: evaluation_batches(job, test),
        finish=job.finish,
        watch=watch,
        wish=saver.wish,
        save=saver.save,
        report=tracking.report if tracking else lambda window, epoch: None,
    )
    try:
        finished = loop.train(engine, feed, plan, progress)
        failure = None
    except (loop.NonFiniteLoss, loop.Disturbed) as error:
        finished, failure = False, error
    finally:
        watch.close()
        feed.close()
    if not finished and failure is None:
        if tracking:
            tracking.say(f"stopped at step {progress.step} ({interruption.reason or 'by a peer'})")
            tracking.close()
        return INTERRUPTED
    final = engine.state()
    if chief and tracking:
        about = {
            "dataset": _dataset(manifest),
            "weights": {"initial": initial, "final": weights.digest(final)},
            "attempts": spec.attempt + 1,
            "total_steps": total,
            "flops": records.flops(progress, feed.forward_flops),
            "cold_start": coldstart.told(spec),
            "contention": watch.summary(
                progress.windows, gave_up=isinstance(failure, loop.Disturbed)
            ),
        }
        _write(spec, job, engine, preparation, progress, final, failure, about)
        tracking.say(str(failure or "finished"))
        tracking.close()
    return FAILED_RUN if failure else 0


def _unwatchable(spec: RunSpec, topology: Topology) -> str | None:
    """Return why other work on the run's CPUs is not looked for, None if it is."""
    if not spec.watched:
        return "the config says so (blocks.watch)"
    if place.share_cpus(place.processes(topology)):
        return "the run's own processes share CPUs, of which there are too few"
    return None


def _dataset(manifest_path: Path) -> dict[str, str]:
    manifest = read_manifest(manifest_path)
    return {key: manifest[key] for key in ("name", "source", "identity", "content", "licence")}


def _write(
    spec: RunSpec,
    job: Job,
    engine: Engine,
    preparation: Preparation,
    progress: loop.Progress,
    final: weights.State,
    failure: Exception | None,
    about: dict,
) -> None:
    folder = Path(spec.folder)
    records.write_tables(folder, progress)
    weights.save(folder / "final.safetensors", final)
    about = {**about, "sha256": seal.hashes(folder)}
    summary = records.summary(
        spec,
        job,
        engine,
        preparation,
        progress,
        status="failed" if failure else "finished",
        reason=str(failure) if failure else None,
        about=about,
    )
    files.write_json(folder / "summary.json", summary)


if __name__ == "__main__":
    ending.run(main, Path(sys.argv[1]))
