"""Timed runs never overlap on one machine, whichever studies they are of."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lockstep import lock
from lockstep.study import Study


@contextmanager
def alone(study: Study) -> Iterator[None]:
    """Wait until no other run of this user is timed on this machine, and keep others waiting.

    Nothing is waited for in a SLURM job, which has its nodes to itself, and in a study that says
    that its runs may share a machine.
    """
    if study.config["blocks"]["share_nodes"] or "SLURM_JOB_ID" in os.environ:
        yield
        return
    path = Path(tempfile.gettempdir()) / f"lockstep-{os.getuid()}" / "timed-run"
    holder = path.with_name("timed-run.holder")

    def waiting() -> str:
        try:
            who = holder.read_text()
        except OSError:
            who = "another study"
        return f"study {study.name}: {who} trains on this machine"

    with lock.held(path, waiting=waiting):
        holder.write_text(f"study {study.name} in {study.root.absolute()} (process {os.getpid()})")
        try:
            yield
        finally:
            holder.unlink(missing_ok=True)
