"""Starts the processes of a run on this machine, passes signals on, and leaves none behind."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from types import FrameType

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
GRACE = 20.0  # seconds that the others get to stop by themselves when one process has ended badly


def launch(
    command: Sequence[str], *, processes: int, threads: int, deadline: float | None = None
) -> int:
    """Run `command` once a rank and wait for all.

    Args:
        command: what each rank runs.
        processes: how many.
        threads: CPU threads for all of them together; each is pinned to its share.
        deadline: time (of `time.time`) at which they should have stopped, or None.

    Returns:
        0 if all ended with 0, else the first other exit status (128 + N for a signal N).
    """
    shares = cpu_shares(processes, threads)
    with tempfile.TemporaryDirectory(prefix="lockstep-") as rendezvous:
        children: list[subprocess.Popen] = []

        def forward(number: int, frame: FrameType | None) -> None:
            for child in children:
                if child.poll() is None:
                    child.send_signal(number)

        previous = {number: signal.signal(number, forward) for number in FORWARDED}
        try:
            for rank in range(processes):
                environment = {
                    **os.environ,
                    "LOCKSTEP_RANK": str(rank),
                    "LOCKSTEP_WORLD_SIZE": str(processes),
                    "LOCKSTEP_LOCAL_RANK": str(rank),
                    "LOCKSTEP_RENDEZVOUS": rendezvous,
                    "LOCKSTEP_STARTED": repr(time.time()),
                    "LOCKSTEP_CPUS": ",".join(map(str, shares[rank])),
                    "OMP_NUM_THREADS": str(len(shares[rank])),
                    "MKL_NUM_THREADS": str(len(shares[rank])),
                }
                if deadline is not None:
                    environment["LOCKSTEP_DEADLINE"] = repr(deadline)
                children.append(subprocess.Popen(command, env=environment))
            return _wait(children)
        finally:
            _stop(children)
            for number, handler in previous.items():
                signal.signal(number, handler)


def cpu_shares(processes: int, threads: int) -> list[list[int]]:
    """Return the CPUs of each process: disjoint as long as there are enough."""
    allowed = sorted(os.sched_getaffinity(0))
    each = max(1, min(threads, len(allowed)) // processes)
    return [
        [allowed[(rank * each + k) % len(allowed)] for k in range(each)]
        for rank in range(processes)
    ]


def _wait(children: list[subprocess.Popen]) -> int:
    """Wait for all; once one has ended badly, the others get a moment to follow."""
    first_bad, since = 0, 0.0
    while True:
        statuses = [child.poll() for child in children]
        if not first_bad:
            bad = [status for status in statuses if status]
            if bad:
                first_bad, since = bad[0] if bad[0] > 0 else 128 - bad[0], time.monotonic()
        if None not in statuses or (first_bad and time.monotonic() - since > GRACE):
            return first_bad
        time.sleep(0.02)


def _stop(children: list[subprocess.Popen]) -> None:
    for child in children:
        if child.poll() is None:
            child.kill()
    for child in children:
        child.wait()
