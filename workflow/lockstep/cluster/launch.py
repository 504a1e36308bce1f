"""Starts the processes of a run on one machine, each with its share of it, and waits for all."""

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lockstep import files, machine
from lockstep.cluster import cpus, failures
from lockstep.cluster.relay import relay
from lockstep.interruption import FAILED_RUN, INTERRUPTED

WAITING = {"GOMP_SPINCOUNT": "300000"}
"""How threads of PyTorch's OpenMP (GNU's libgomp) wait for each other: they spin for milliseconds
before they sleep. It is their default, which may be another one in other circumstances; Eigen's
pool, which XLA uses, has no such setting. docs/performance.md says what sleeping would cost."""
CHOSEN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # by a person, who then means it
MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(32 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}
"""glibc's allocator keeps what PyTorch frees. By default it gives the top of its heap back to the
system when much of it is free, and an accident decides whether that is so after every step: what
else lies there, such as a larger dataset. Then a step takes up to 1.76 times as long
(docs/performance.md). XLA keeps its memory by itself."""
GRACE = 20.0  # seconds that the others get to stop by themselves when one process has ended badly
AGREED = (INTERRUPTED, FAILED_RUN)  # all ranks end so, some later than others: one writes


def let_threads_sleep() -> None:
    """Have OpenMP's threads sleep while they wait, unless a person has chosen.

    For what is not timed: beside other work, spinning holds itself up as well as the others.
    """
    if not os.environ.keys() & set(CHOSEN):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def settings() -> dict[str, str]:
    """Return how threads wait and where memory comes from, unless a person has chosen."""
    waiting = {} if os.environ.keys() & set(CHOSEN) else WAITING
    told = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    return {**waiting, **({} if told else MEMORY)}


@dataclass(frozen=True, kw_only=True)
class Part:
    """One machine's part of a run over several.

    Attributes:
        first_rank: of this machine's processes.
        world_size: processes on all machines.
        rendezvous: folder that all machines see, and no other start of a run.
        host: address under which the others reach this machine.
    """

    first_rank: int
    world_size: int
    rendezvous: Path
    host: str


def launch(
    command: Sequence[str],
    *,
    processes: int,
    threads: int,
    devices: int = 1,
    deadline: float | None = None,
    timeout: float | None = None,
    part: Part | None = None,
) -> int:
    """Run `command` once a rank and wait for all.

    Args:
        command: what each rank runs.
        processes: how many on this machine.
        threads: CPU threads for all of them together; each is pinned to its share.
        devices: that each of them drives.
        deadline: time (of `time.time`) at which they should have stopped, or None.
        timeout: seconds that one waits for another before it fails; None for the default.
        part: their part of a run over several machines; None if this machine runs all of it.

    Returns:
        0 if all ended with 0, else the first other exit status (128 + N for a signal N).
    """
    shares = cpus.shares(processes, threads)
    gpus = machine.visible_gpus()
    # Processes meet by themselves; JAX would ask a proxy for the way to its own coordinator.
    inherited = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    with files.scratch() as scratch, relay() as started:
        environments: list[dict[str, str]] = []
        for rank in range(processes):
            environment = {
                **inherited,
                "LOCKSTEP_RANK": str(rank + (part.first_rank if part else 0)),
                "LOCKSTEP_WORLD_SIZE": str(part.world_size if part else processes),
                "LOCKSTEP_LOCAL_RANK": str(rank),
                "LOCKSTEP_LOCAL_DEVICES": str(devices),
                "LOCKSTEP_RENDEZVOUS": str(part.rendezvous) if part else scratch,
                "LOCKSTEP_SCRATCH": scratch,
                "LOCKSTEP_LAUNCHER": str(os.getpid()),
                "LOCKSTEP_STARTED": repr(time.time()),
                "LOCKSTEP_CPUS": ",".join(map(str, shares[rank])),
                "OMP_NUM_THREADS": str(len(shares[rank])),
                "MKL_NUM_THREADS": str(len(shares[rank])),
                **settings(),
            }
            if part is not None:
                environment["LOCKSTEP_HOST"] = part.host
            if len(gpus) >= processes * devices:
                # Its own GPUs alone, so that no framework takes those of another process.
                own = gpus[rank * devices : (rank + 1) * devices]
                environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
            if deadline is not None:
                environment["LOCKSTEP_DEADLINE"] = repr(deadline)
            if timeout is not None:
                environment["LOCKSTEP_TIMEOUT"] = repr(timeout)
            environments.append(environment)
            started.start(command, environment)
        return _wait(started.children, environments)


def _wait(children: list[subprocess.Popen], environments: list[dict[str, str]]) -> int:
    """Wait for all; once one has ended badly, the others get a moment to follow."""
    first_bad, since = 0, 0.0
    while True:
        statuses = [child.poll() for child in children]
        if not first_bad:
            for status, environment in zip(statuses, environments, strict=True):
                if status and status not in AGREED:
                    status = status if status > 0 else 128 - status
                    failures.note(environment, status)
                    first_bad, since = first_bad or status, time.monotonic()
        if None not in statuses:
            return first_bad or max(status or 0 for status in statuses)
        if first_bad and time.monotonic() - since > GRACE:
            return first_bad
        time.sleep(0.02)
