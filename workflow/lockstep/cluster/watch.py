"""Looks after the jobs of a workflow: what happens to them is one line where it was started.

Snakemake's plugin asks for their state up to three minutes apart, and shows nothing of what
commands and jobs say (`lockstep.cluster.notices`). Here they are asked for more often, and the
plugin asks as soon as a job has ended.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lockstep.cluster import client, notices, submit

PERIOD = 20.0  # seconds between two looks at the queue
SHOWN = 0.5  # seconds between two looks at the log
QUEUED = ("PENDING", "REQUEUED", "REQUEUE_HOLD")
STARTED = ("RUNNING", "COMPLETING", "CONFIGURING", "NODE_FAIL", "PREEMPTED")


_ended = threading.Event()  # since the plugin has asked the last time


def begin(executor: Any) -> None:
    """Show from now on what is new in the log, and look at the queue, as long as this runs.

    In the environment that `submit.environment` makes.

    Args:
        executor: Snakemake's, of the plugin.
    """
    executor.sleep = lambda: _sleep(executor.next_seconds_between_status_checks)
    notes = Path(os.environ[notices.FOLDER])
    log = notices.log(notes)
    begun = log.stat().st_size if log.is_file() else 0
    earlier = _runs(note for _, note in submit.noted(notes))
    for job in (lambda: _show(log, begun), lambda: _look(notes, earlier)):
        threading.Thread(target=job, daemon=True).start()


def _runs(noted: Iterable[Mapping[str, Any]]) -> set[str]:
    """Return the names that starts of the workflow have given to their jobs."""
    return {note["job-name"] for note in noted if note.get("job-name")}


async def _sleep(seconds: float) -> None:
    """Let the plugin wait until it asks again: so long, or until a job has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not _ended.is_set():
        await asyncio.sleep(0.5)
    _ended.clear()


def _show(log: Path, begun: int) -> None:
    while True:
        begun = show(log, begun)
        time.sleep(SHOWN)


def show(log: Path, begun: int) -> int:
    """Print whole lines of a log from a byte on; returns the byte after them."""
    if not log.is_file():
        return begun
    with open(log, "rb") as stream:
        stream.seek(begun)
        new = stream.read()
    whole = new[: new.rfind(b"\n") + 1]
    for line in whole.decode(errors="replace").splitlines():
        print(f"lockstep: {line.split(' ', 2)[-1]}", file=sys.stderr, flush=True)
    return begun + len(whole)


def _look(notes: Path, earlier: set[str]) -> None:
    before: dict[str, str] = {}
    while True:
        time.sleep(PERIOD)
        noted = [note for _, note in submit.noted(notes)]
        targets = {note["job"]: note["target"] for note in noted}
        now: dict[str, str] = {}
        for run in _runs(noted) - earlier:
            now |= client.states(notes, run, patience=PERIOD)
        for line in news(before, now, targets):
            notices.say(line)
        if any(state in submit.ENDED and before.get(job) != state for job, state in now.items()):
            _ended.set()
        before |= now


def news(
    before: Mapping[str, str], now: Mapping[str, str], targets: Mapping[str, str]
) -> list[str]:
    """Return a line for each job that was stopped or taken away since the last look."""
    lines = []
    for job, state in now.items():
        was, target = before.get(job), targets.get(job)
        if target is None or was == state:
            continue
        if state in submit.ENDED - {"COMPLETED", "COMPLETING"}:
            lines.append(f"job {job} ({target}) has ended as {state}")
        elif state in QUEUED and was in STARTED:
            lines.append(f"job {job} ({target}) was taken from its nodes and is queued again")
    return lines
