"""Tells a person, before a run is timed, that the machine is busy, and with what."""

import os

from lockstep import terminal
from lockstep.cluster import kernel

WATCHED = 0.5  # seconds
BUSY = 0.05  # share of the CPUs that others have
NAMED = 3  # processes, of those with at least as large a share of one CPU


def tell(run: str) -> None:
    """Say so on standard error, which may be a log, and to the terminal if there is one."""
    found = look()
    if found is None:
        return
    terminal.say(f"{run}: {found}")


def look() -> str | None:
    """Watch the machine for a moment; return what is to be said of it, None if it is quiet."""
    cpus = os.sched_getaffinity(0)
    before = kernel.cpu_time(cpus)
    processes = kernel.busiest(WATCHED, besides=ancestry())
    after = kernel.cpu_time(cpus)
    if before is None or after is None:
        return None
    share = kernel.foreign(before, after, len(cpus))
    if share <= BUSY:
        return None
    named = [
        f"{each.name} (process {each.process}, {each.share:.0%} of a CPU)"
        for each in processes[:NAMED]
        if each.share >= BUSY
    ]
    by = ", ".join(named) or "processes that cannot be seen from here, or end at once"
    return (
        f"the machine is busy: other work has {share:.0%} of its {len(cpus)} CPUs: {by}. Windows "
        "that it disturbs do not count; a run with too few others is not comparable in time"
    )


def ancestry() -> list[int]:
    """Return this process and those that started it, which wait for it."""
    found, process = [], os.getpid()
    while process > 1:
        found.append(process)
        process = kernel.parent(process) or 0
    return found
