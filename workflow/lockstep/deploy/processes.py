"""Starts the processes of the stage, each with CPUs of its own, some at once or one by one."""

import os
import signal
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lockstep import files
from lockstep.cluster import cpus, launch
from lockstep.cluster.relay import relay

Key = TypeVar("Key")


def room(threads: int) -> int:
    """Return how many processes of so many threads this machine has CPUs for."""
    return max(1, len(os.sched_getaffinity(0)) // threads)


def run(
    commands: Iterable[tuple[Key, Sequence[str]]], *, threads: int, at_once: int = 1
) -> dict[Key, int]:
    """Run commands, and wait for all.

    Args:
        commands: each with what it is called.
        threads: of each, which are its CPUs.
        at_once: how many may run beside each other.

    Returns:
        The exit status of each; -N for a signal N.

    Raises:
        KeyboardInterrupt: this process was told to end; those that it started were, too.
    """
    shares = cpus.shares(at_once, threads * at_once)
    waiting, running = list(commands), dict[int, tuple[Key, int]]()
    ended: dict[Key, int] = {}
    with files.scratch() as scratch, relay() as started:
        while running or (waiting and not started.interrupted):
            free = [slot for slot in range(at_once) if slot not in running]
            while waiting and free and not started.interrupted:
                key, command = waiting.pop(0)
                slot = free.pop(0)
                started.start(command, _environment(scratch, shares[slot]))
                running[slot] = key, len(started.children) - 1
            for slot, (key, child) in list(running.items()):
                status = started.children[child].poll()
                if status is not None:
                    ended[key] = status
                    del running[slot]
            time.sleep(0.01)
        if started.interrupted:
            raise KeyboardInterrupt
    return ended


def result(path: Path, status: int) -> dict[str, Any]:
    """Return what a process left behind; if nothing, how it ended."""
    if path.is_file():
        found: dict[str, Any] = files.read_json(path)
        return found
    how = f"status {status}" if status >= 0 else f"signal {-status}"
    if -status == signal.SIGALRM:
        return {"reason": "its process took longer than deploy.timeout"}
    return {"reason": f"its process ended with {how}; see the log"}


def _environment(scratch: str, share: Sequence[int]) -> dict[str, str]:
    """Return a process's environment: its CPUs, and no GPU, as all routes are served on a CPU."""
    return {
        **os.environ,
        **launch.settings(),
        "LOCKSTEP_SCRATCH": scratch,
        "LOCKSTEP_LAUNCHER": str(os.getpid()),
        "LOCKSTEP_STARTED": repr(time.time()),
        "LOCKSTEP_CPUS": ",".join(map(str, share)),
        "OMP_NUM_THREADS": str(len(share)),
        "MKL_NUM_THREADS": str(len(share)),
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
    }
