"""A block: the runs that share one allocation, one after the other, each in processes of its own.

Runs that have finished under the same identity are skipped, so a retried block goes on where it
was. The block's outputs, a manifest and the runs' final states, appear when all have finished.
"""

import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lockstep import files, inside, lock, machine
from lockstep.cluster import slurm
from lockstep.cluster.start import roll_call, start
from lockstep.errors import UserError
from lockstep.images.study_image import StudyImage
from lockstep.interruption import FAILED_RUN, INTERRUPTED
from lockstep.link import link_or_copy
from lockstep.study import Study
from lockstep.study.identity import run_code, stage_code
from lockstep.study.run import Block, Run
from lockstep.training import attempts, busy, coldstart, seal
from lockstep.training.alone import alone
from lockstep.training.spec import RunSpec

SCHEMA = "lockstep-block/1"
LOCK = ".lock"


def run_block(
    study: Study,
    name: str,
    *,
    resume_from: Path | None = None,
    time_budget: float | None = None,
    gpus: int = 0,
) -> int:
    """Train the runs of a block.

    Args:
        resume_from: a checkpoint to start from, for runs that have none of their own.
        time_budget: seconds after which to stop at a checkpoint; None for those that the SLURM
            job around this has left, or for no limit.
        gpus: GPUs that each node must show; 0 if none were asked for.

    Returns:
        Exit status: 0 if all runs have their records (a failed run's record is one too).

    Raises:
        UserError: a run could not be started as configured.
    """
    block = study.block(name)
    deadline = (
        time.time() + time_budget
        if time_budget
        else slurm.end_of_this_job(study.config["checkpoints"]["margin"])
    )
    host, ahead = _host(study, block, gpus)
    runs = list(block.runs)
    random.Random(f"{study.name} {name}").shuffle(runs)  # no variant is always first
    finished = {}
    for run in runs:
        folder = study.run_folder(run)
        # Two trainers of one run: the second waits until the first is done or dead.
        with lock.held(folder / LOCK, waiting=f"{folder} is being trained by another process"):
            spec = specify(study, run, resume_from, host)
            status = _run(study, run, spec, deadline, gpus, ahead)
        if status not in (0, FAILED_RUN):
            return status
        finished[run.name] = _records(spec)
    _publish(study, name, runs)
    files.write_json(study.manifest(name), {"schema": SCHEMA, "block": name, "runs": finished})
    return 0


def _host(study: Study, block: Block, gpus: int) -> tuple[dict[str, Any], list[float]]:
    """Return facts about the job and its nodes, the first node's in front; and their clocks.

    Raises:
        UserError: the nodes are not those that the block asks for.
    """
    facts, ahead = roll_call(
        block.scale,
        threads=study.config["threads"],
        gpus=gpus,
        folder=study.root / "rendezvous",
    )
    return facts[0] | {"nodes": facts, "job": slurm.this_job()}, ahead


def _run(
    study: Study,
    run: Run,
    spec: RunSpec,
    deadline: float | None,
    gpus: int,
    ahead: Sequence[float],
) -> int:
    folder = Path(spec.folder)
    if _is_finished(spec):
        _say(f"{run.name} has finished before, nothing to do")
        _tidy(spec)  # a kill may have come before
        return 0
    if deadline is not None and time.time() > deadline:
        attempts.announce(spec, INTERRUPTED)
        return INTERRUPTED
    for name in ("summary.json", "failure.json"):  # of another identity, or of an earlier attempt
        (folder / name).unlink(missing_ok=True)
    if not Path(spec.checkpoints).exists() or not _begun(folder, spec.identity):
        _clear(folder)
    spec = attempts.begin(spec)
    spec.save(folder / "run.json")

    reasons: list[str | None] = [None]

    def begin(module: str) -> int:
        status, reasons[0] = start(
            inside.worker(
                study,
                study.framework(run)[0],
                [str(folder / "run.json")],
                reads=Path(spec.resume_from) if spec.resume_from else None,
                name=module,
            ),
            run.scale,
            process=spec.settings["process"],
            threads=spec.threads,
            gpus=gpus,
            deadline=deadline,
            timeout=study.config["blocks"]["timeout"],
            ahead=ahead,
            folder=study.root / "rendezvous",
        )
        return status

    with alone(study):
        if spec.watched:
            busy.tell(spec.name)
        cold = study.config["blocks"]["cold_start"]
        status = coldstart.ensure(spec, lambda: begin("coldstart")) if cold else 0
        status = status or begin("worker")
    if status in (0, FAILED_RUN):
        _tidy(spec)
        summary = files.read_json(folder / "summary.json")
        if gave_up(summary):
            files.write_json(study.again(run), {"ended": summary["ended"]})
    else:
        reason = attempts.why(status, reasons[0])
        files.write_json(folder / "failure.json", {"identity": spec.identity, "reason": reason})
        attempts.end(spec, reason)
        attempts.announce(spec, status, reason)
    return status


def gave_up(summary: Mapping[str, Any]) -> bool:
    """Whether a run ended because other work had its machine; it is no finished one."""
    return bool(summary.get("contention", {}).get("gave_up"))


def _tidy(spec: RunSpec) -> None:
    """Remove what only a run that goes on needs."""
    files.remove(Path(spec.checkpoints).parent)
    files.remove(Path(spec.folder) / "failure.json")


def _begun(folder: Path, identity: str) -> bool:
    """Whether what lies in a run's folder was begun under this identity."""
    try:
        return bool(RunSpec.load(folder / "run.json").identity == identity)
    except (UserError, OSError, TypeError):
        return False


def _clear(folder: Path) -> None:
    """Remove what a run of another identity left, so that no event or log of it is mixed in."""
    if folder.exists():
        for path in folder.iterdir():
            if path.name != LOCK:
                files.remove(path)


def specify(study: Study, run: Run, resume_from: Path | None, host: Mapping[str, Any]) -> RunSpec:
    """Return all that a run's processes are told, with the run's identity.

    Args:
        host: facts about the nodes and the job, for the record.

    Raises:
        UserError: the dataset or the weights are not there.
    """
    framework, workload = study.framework(run)
    image = study.images.get(framework)
    recipe = study.workload(run.workload)
    manifest = study.dataset_manifest(recipe["dataset"])
    initial = study.weights(run.workload, run.seed)
    for path in (manifest, initial):
        if not path.is_file():
            raise UserError(f"{path}: no such file; run the stages before this one first")
    variant, settings = study.variant(run.variant), study.run_config(run)
    trains = {
        "recipe": {k: v for k, v in settings["workload"].items() if k != "dataset"},
        "precision": variant["precision"],
        # Each framework's own loader has an order of examples of its own.
        "input": [framework, "native"] if variant["input"] == "native" else "shared",
        "dataset": files.read_json(manifest)["content"],
        "weights": files.sha256_file(initial),
        "seed": run.seed,
    }
    determined_by = {
        **trains,
        "settings": settings,
        "code": run_code(framework, workload),
        "environment": {"image": image.identity} if image else study.environment,
        "repetition": study.repetition("train"),
    }
    identity = files.digest(determined_by)
    checkpoints = study.root / "checkpoints" / run.name / identity[:16]
    config = study.config
    return RunSpec(
        study=study.name,
        workload=run.workload,
        variant=run.variant,
        scale=str(run.scale),
        seed=run.seed,
        recipe=recipe,
        settings=study.variant(run.variant),
        identity=identity,
        trajectory=files.digest(trains),
        determined_by=determined_by,
        folder=str(study.run_folder(run)),
        checkpoints=str(checkpoints),
        dataset=str(manifest),
        weights=str(initial),
        programs=files.digest(_programs(study, run, image)),
        caches=str(study.programs(machine.instruction_set(), run)),
        resume_from=str(resume_from) if resume_from else None,
        threads=config["threads"],
        watched=config["blocks"]["watch"],
        window_steps=config["window_steps"],
        checkpoint_seconds=config["checkpoints"]["seconds"],
        checkpoint_steps=config["checkpoints"]["steps"],
        tensorboard=config["tracking"]["tensorboard"],
        wandb=config["tracking"]["wandb"],
        host=dict(host) | ({"image": image.facts()} if image else {}),
    )


def _programs(study: Study, run: Run, image: StudyImage | None) -> list[Any]:
    """Return what determines the programs that a run compiles: all but its seed and its data."""
    settings = {name: value for name, value in study.run_config(run).items() if name != "seed"}
    code = [run_code(*study.framework(run)), stage_code("lockstep.training.coldstart")]
    return [settings, code, image.identity if image else study.environment]


def _is_finished(spec: RunSpec) -> bool:
    path = Path(spec.folder) / "summary.json"
    if not path.is_file():
        return False
    try:
        summary = files.read_json(path)
    except UserError:
        return False
    if summary.get("identity") != spec.identity or gave_up(summary):
        return False
    problem = seal.broken(path.parent, summary)
    if problem:
        _say(f"{path.parent}: {problem}; the run is trained again")
    return problem is None


def _records(spec: RunSpec) -> dict[str, Any]:
    """Return a run's line in the manifest: its status and the hashes of its records."""
    folder = Path(spec.folder)
    names = ("summary.json", *seal.RECORDS)
    return {
        "identity": spec.identity,
        "status": files.read_json(folder / "summary.json")["status"],
        "sha256": {name: files.sha256_file(folder / name) for name in names},
    }


def _publish(study: Study, block: str, runs: list[Run]) -> None:
    """Link the final states into the block's output folder."""
    with files.atomic(study.states(block)) as temporary:
        temporary.mkdir()
        for run in runs:
            link_or_copy(
                study.run_folder(run) / "final.safetensors",
                temporary / f"{run.variant}.safetensors",
            )


def _say(text: str) -> None:
    print(f"lockstep: {text}", file=sys.stderr, flush=True)
