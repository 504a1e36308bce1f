"""Starts a run where it belongs: on the nodes of the SLURM job around it, or on this machine."""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lockstep import files, machine
from lockstep.cluster import failures, notices, slurm
from lockstep.cluster.launch import Part, launch
from lockstep.cluster.relay import relay
from lockstep.errors import UserError
from lockstep.study.run import Scale

PATIENCE = 60  # seconds until a job step has its nodes
SKEW = 5.0  # seconds between two clocks of which nothing is said
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
        deadline: time (of the first node's `time.time`) at which all should have stopped, or None.
        timeout: seconds that a process waits for another before it fails.
        ahead: seconds by which each node's clock is ahead of the first one's.
    """

    command: tuple[str, ...]
    nodes: int
    processes: int
    devices: int
    threads: int
    gpus: int
    deadline: float | None = None
    timeout: float | None = None
    ahead: tuple[float, ...] = ()


def in_job() -> bool:
    """Whether this process runs in a SLURM job, whose nodes `srun` reaches."""
    return "SLURM_JOB_ID" in os.environ and shutil.which("srun") is not None


def roll_call(
    scale: Scale, *, threads: int, gpus: int, folder: Path
) -> tuple[list[dict[str, Any]], list[float]]:
    """Return the facts of every node that a run at this scale would run on, and its clock.

    Args:
        gpus: GPUs that each node is to show; 0 if none were asked for.
        folder: as in `start`.

    Returns:
        The nodes' facts, and the seconds by which their clocks are ahead of the first one's.

    Raises:
        UserError: they are not as many, or have not as many GPUs, as the scale says, or cannot
            reach each other.
    """
    if not in_job():
        _check_here(scale)
        return [machine.facts()], [0.0]
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
        )
        if _on_all_nodes(call, rendezvous):
            raise UserError(
                f"scale {scale} cannot be started on the nodes of job "
                f"{os.environ['SLURM_JOB_ID']}, for the reason above"
            )
        seen = [files.read_json(path) for path in sorted(rendezvous.glob("node-*.json"))]
    _check_network(seen)
    return [node["facts"] for node in seen], [node.get("clock_ahead", 0.0) for node in seen]


def _check_network(seen: Sequence[Mapping[str, Any]]) -> None:
    """Refuse nodes that cannot reach the first one, and say of clocks that differ."""
    names = [node["facts"]["node"] for node in seen]
    for name, node in zip(names, seen, strict=True):
        if why := node.get("unreachable"):
            raise UserError(
                f"{name} cannot reach {names[0]} ({why}); the processes of a run need free ports "
                "between nodes: have them opened, or leave the node out "
                f"(slurm_extra=--exclude={name})"
            )
        if abs(ahead := node.get("clock_ahead", 0.0)) > SKEW:
            word = "ahead of" if ahead > 0 else "behind"
            text = f"the clock of {name} is {abs(ahead):.0f} s {word} that of {names[0]}"
            notices.say(f"{text}; runs go by the latter")
            print(f"lockstep: {text}; runs go by the latter", file=sys.stderr, flush=True)


def start(
    command: Sequence[str],
    scale: Scale,
    *,
    process: str,
    threads: int,
    gpus: int,
    deadline: float | None,
    timeout: float,
    ahead: Sequence[float],
    folder: Path,
) -> tuple[int, str | None]:
    """Run `command` once a rank and wait for all.

    Args:
        process: drives one `device`, or all those of a `node`.
        timeout: seconds that a process waits for another before it fails.
        ahead: as the roll call says.
        folder: on a file system that all nodes share; the nodes meet in a folder below it.

    Returns:
        0 if all ended with 0, else the first other exit status; and what the process that failed
        first said of it, if it did.
    """
    processes, devices = (1, scale.devices) if process == "node" else (scale.devices, 1)
    with _meeting(folder) as rendezvous:
        if in_job():
            told = Start(
                command=tuple(command),
                nodes=scale.nodes,
                processes=processes,
                devices=devices,
                threads=threads,
                gpus=gpus,
                deadline=deadline,
                timeout=timeout,
                ahead=tuple(ahead),
            )
            status = _on_all_nodes(told, rendezvous)
        else:
            world = scale.nodes * processes
            status = launch(
                command,
                processes=world,
                devices=devices,
                threads=threads,
                deadline=deadline,
                timeout=timeout,
                part=Part(first_rank=0, world_size=world, rendezvous=rendezvous, host="127.0.0.1"),
            )
        return status, failures.first(rendezvous)


@contextlib.contextmanager
def _meeting(folder: Path) -> Iterator[Path]:
    """Yield a folder that only this start, and only this user, sees."""
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=".start-", dir=folder.absolute()))
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
    lists = {name: tuple(told[name]) for name in ("command", "ahead")}
    return Start(**{**told, **lists})
