"""Starts a run where it belongs: on the nodes of the SLURM job around it, or on this machine."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lockstep import files, machine
from lockstep.cluster import slurm
from lockstep.cluster.launch import launch
from lockstep.cluster.relay import relay
from lockstep.errors import UserError
from lockstep.study.run import Scale

PATIENCE = 60  # seconds until a job step has its nodes
REFUSED = 2  # exit status of a node that is not as asked for


@dataclass(frozen=True, kw_only=True)
class Start:
    """What each node of a job is told, in a file that all of them read.

    Attributes:
        command: what each rank runs; empty for a roll call, which starts nothing.
        nodes, processes: how many, and how many on each node.
        devices: that each process drives.
        threads: CPU threads of each node.
        gpus: GPUs that each node is to show; 0 if none were asked for.
        deadline: time (of `time.time`) at which all should have stopped, or None.
    """

    command: tuple[str, ...]
    nodes: int
    processes: int
    devices: int
    threads: int
    gpus: int
    deadline: float | None


def in_job() -> bool:
    """Whether this process runs in a SLURM job, whose nodes `srun` reaches."""
    return "SLURM_JOB_ID" in os.environ and shutil.which("srun") is not None


def roll_call(scale: Scale, *, threads: int, gpus: int, folder: Path) -> list[dict[str, Any]]:
    """Return the facts of every node that a run at this scale would run on.

    Args:
        gpus: GPUs that each node is to show; 0 if none were asked for.
        folder: as in `start`.

    Raises:
        UserError: they are not as many, or have not as many GPUs, as the scale says.
    """
    if not in_job():
        _check_here(scale)
        return [machine.facts()]
    # srun would wait forever for nodes that the job does not have.
    held = slurm.this_job().get("node_count")
    if held is not None and held != scale.nodes:
        raise UserError(
            f"scale {scale} asks for {scale.nodes} nodes, job {os.environ['SLURM_JOB_ID']} has "
            f"{held}"
        )
    with _meeting(folder) as rendezvous:
        call = Start(
            command=(),
            nodes=scale.nodes,
            processes=scale.devices,
            devices=1,
            threads=threads,
            gpus=gpus,
            deadline=None,
        )
        if _on_all_nodes(call, rendezvous):
            raise UserError(
                f"scale {scale} cannot be started on the nodes of job "
                f"{os.environ['SLURM_JOB_ID']}, for the reason above"
            )
        return [files.read_json(path) for path in sorted(rendezvous.glob("node-*.json"))]


def start(
    command: Sequence[str],
    scale: Scale,
    *,
    process: str,
    threads: int,
    gpus: int,
    deadline: float | None,
    folder: Path,
) -> int:
    """Run `command` once a rank and wait for all.

    Args:
        process: drives one `device`, or all those of a `node`.
        folder: on a file system that all nodes share; the nodes meet in a folder below it.

    Returns:
        0 if all ended with 0, else the first other exit status.
    """
    processes, devices = (1, scale.devices) if process == "node" else (scale.devices, 1)
    if not in_job():
        return launch(
            command,
            processes=scale.nodes * processes,
            devices=devices,
            threads=threads,
            deadline=deadline,
        )
    with _meeting(folder) as rendezvous:
        told = Start(
            command=tuple(command),
            nodes=scale.nodes,
            processes=processes,
            devices=devices,
            threads=threads,
            gpus=gpus,
            deadline=deadline,
        )
        return _on_all_nodes(told, rendezvous)


@contextlib.contextmanager
def _meeting(folder: Path) -> Iterator[Path]:
    """Yield a folder that only this start, and only this user, sees."""
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=".start-", dir=folder))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _on_all_nodes(start: Start, rendezvous: Path) -> int:
    """Start one agent a node (`lockstep.cluster.node`) in a job step, and wait for all."""
    files.write_json(rendezvous / "start.json", asdict(start))
    nodes = str(start.nodes)
    step = [
        *("srun", "--nodes", nodes, "--ntasks", nodes, "--ntasks-per-node", "1"),
        # srun does not inherit it; without it a task has one CPU.
        *("--cpus-per-task", str(start.threads)),
        f"--immediate={PATIENCE}",  # or it would wait forever for what the job does not have
        "--overlap",  # a person's own step around us holds nothing back
        "--kill-on-bad-exit=1",
        "--cpu-bind=none",  # each process is pinned to its share
        *("--input", "none"),
        *(sys.executable, "-m", "lockstep.cluster.node", str(rendezvous)),
    ]
    with relay() as started:
        status = started.start(step).wait()
    if status:
        return status if status > 0 else 128 - status
    answers = [files.read_json(path) for path in sorted(rendezvous.glob("status-*.json"))]
    if len(answers) != start.nodes:
        raise UserError(
            f"{len(answers)} of {start.nodes} nodes answered; {rendezvous.parent} must be on a "
            "file system that all nodes share"
        )
    return max(answers)


def _check_here(scale: Scale) -> None:
    gpus = machine.visible_gpus()
    if gpus and len(gpus) < scale.size:
        raise UserError(
            f"scale {scale} asks for {scale.size} GPUs, this machine has {len(gpus)}; choose "
            "another scale, or set CUDA_VISIBLE_DEVICES= (empty) to count CPU processes"
        )


def read(rendezvous: Path) -> Start:
    """Return what a node is told."""
    told = files.read_json(rendezvous / "start.json")
    return Start(**{**told, "command": tuple(told["command"])})
