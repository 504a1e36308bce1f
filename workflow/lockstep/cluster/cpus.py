"""Which CPUs each process of a machine gets."""

import os
from collections.abc import Mapping
from pathlib import Path

TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology"
Core = tuple[int, int]  # package, and core in it


def shares(processes: int, threads: int) -> list[list[int]]:
    """Return the CPUs of each process, of those that this one may use.

    Args:
        processes: how many.
        threads: for all of them together.
    """
    allowed = sorted(os.sched_getaffinity(0))
    return share({cpu: core_of(cpu) for cpu in allowed}, processes, threads)


def share(cores: Mapping[int, Core], processes: int, threads: int) -> list[list[int]]:
    """Share CPUs out: disjoint ones as long as there are enough, and disjoint cores.

    A core with hyperthreads is two CPUs, whose numbers are often far apart. Second CPUs of cores
    are taken only if there are not cores enough; each process gets neighbours.

    Args:
        cores: of each CPU that may be used.
    """
    taken: dict[Core, int] = {}
    turns = {}  # whether a CPU is its core's first, second, …
    for cpu in sorted(cores):
        turns[cpu] = taken[cores[cpu]] = taken.get(cores[cpu], 0) + 1
    each = max(1, min(threads, len(cores)) // processes)
    spread = sorted(cores, key=lambda cpu: (turns[cpu], cores[cpu], cpu))
    used = sorted(spread[: each * processes], key=lambda cpu: (cores[cpu], cpu))
    return [
        [used[(process * each + k) % len(used)] for k in range(each)]
        for process in range(processes)
    ]


def core_of(cpu: int) -> Core:
    """Return a CPU's core; where the machine does not tell, each CPU is one of its own."""
    folder = Path(TOPOLOGY.format(cpu))
    try:
        package, core = (
            int((folder / name).read_text()) for name in ("physical_package_id", "core_id")
        )
    except (OSError, ValueError):
        return 0, cpu
    return package, core
