"""A process's place among those of its run, as its launcher put it into the environment."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from lockstep.engines.contract import Topology


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where and when this process was started.

    Attributes:
        started: when its launcher started it (`time.time`).
        deadline: when it must have stopped, or None.
        cpus: the CPUs it may use; empty for all.
    """

    topology: Topology
    started: float
    deadline: float | None
    cpus: tuple[int, ...]

    @classmethod
    def from_environment(cls) -> "Place":
        """Read what the launcher wrote; without a launcher, a single process."""
        get = os.environ.get
        rendezvous = get("LOCKSTEP_RENDEZVOUS")
        deadline = get("LOCKSTEP_DEADLINE")
        return cls(
            topology=Topology(
                rank=int(get("LOCKSTEP_RANK", "0")),
                world_size=int(get("LOCKSTEP_WORLD_SIZE", "1")),
                local_rank=int(get("LOCKSTEP_LOCAL_RANK", "0")),
                rendezvous=Path(rendezvous) if rendezvous else None,
                host=get("LOCKSTEP_HOST", "127.0.0.1"),
            ),
            started=float(get("LOCKSTEP_STARTED", str(time.time()))),
            deadline=float(deadline) if deadline else None,
            cpus=tuple(int(cpu) for cpu in get("LOCKSTEP_CPUS", "").split(",") if cpu),
        )

    def pin(self) -> None:
        """Keep to the CPUs given. XLA and PyTorch take their thread counts from this set."""
        if self.cpus and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.cpus)
