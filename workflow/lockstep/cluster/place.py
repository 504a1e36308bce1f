"""A process's place among those of its run, as its launcher put it into the environment."""

import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.engines.contract import Topology

THREADING = (
    "GOMP_SPINCOUNT",
    "KMP_BLOCKTIME",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OMP_PROC_BIND",
    "OMP_WAIT_POLICY",
    "XLA_FLAGS",
)
PROCESS = "process-{:05d}-{}.json"  # rank and process: a second start would show


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and when this process was started.

    Attributes:
        started: when its launcher started it (`time.time`).
        deadline: when it must have stopped, or None.
        cpus: the CPUs it may use; empty for all.
        parent: the process that started it; None if unknown, as in an image, where it is
            Apptainer (which watches the launcher for us: `lockstep.images.watch`).
    """

    topology: Topology
    started: float
    deadline: float | None
    cpus: tuple[int, ...]
    parent: int | None

    @classmethod
    def from_environment(cls) -> "Place":
        """Read what the launcher wrote; without a launcher, a single process."""
        get = os.environ.get
        rendezvous = get("LOCKSTEP_RENDEZVOUS")
        deadline = get("LOCKSTEP_DEADLINE")
        launcher = get("LOCKSTEP_LAUNCHER") if "LOCKSTEP_INSIDE" not in os.environ else None
        return cls(
            topology=Topology(
                rank=int(get("LOCKSTEP_RANK", "0")),
                world_size=int(get("LOCKSTEP_WORLD_SIZE", "1")),
                local_rank=int(get("LOCKSTEP_LOCAL_RANK", "0")),
                local_devices=int(get("LOCKSTEP_LOCAL_DEVICES", "1")),
                rendezvous=Path(rendezvous) if rendezvous else None,
                host=get("LOCKSTEP_HOST", "127.0.0.1"),
                timeout=float(get("LOCKSTEP_TIMEOUT", Topology.timeout)),
            ),
            started=float(get("LOCKSTEP_STARTED", str(time.time()))),
            deadline=float(deadline) if deadline else None,
            cpus=tuple(int(cpu) for cpu in get("LOCKSTEP_CPUS", "").split(",") if cpu),
            parent=int(launcher) if launcher else None,
        )

    def announce(self) -> None:
        """Tell the other processes of the run where this one is."""
        if self.topology.rendezvous is not None:
            seen = {
                "rank": self.topology.rank,
                "node": platform.node(),
                "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
                "cpus": list(self.cpus),
            }
            name = PROCESS.format(self.topology.rank, os.getpid())
            files.write_json(self.topology.rendezvous / name, seen)

    def pin(self) -> None:
        """Keep to the CPUs given. XLA and PyTorch take their thread counts from this set."""
        if self.cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cpus)


def environment() -> dict[str, str]:
    """Return the variables that say how threads wait and run, and where memory comes from."""
    return {name: os.environ[name] for name in THREADING if name in os.environ}


def share_cpus(processes: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether two of a run's processes may use the same CPU of a node."""
    taken: set[tuple[str, int]] = set()
    for process in processes:
        own = {(process["node"], cpu) for cpu in process["cpus"]}
        if not taken.isdisjoint(own):
            return True
        taken |= own
    return False


def processes(topology: Topology) -> list[dict[str, Any]]:
    """Return where each process of the run is, by what it announced, in the order of ranks."""
    folder = topology.rendezvous
    if folder is None:
        return []
    return [files.read_json(path) for path in sorted(folder.glob("process-*.json"))]
