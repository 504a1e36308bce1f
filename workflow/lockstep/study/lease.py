"""One workflow at a time on a study, also after a crash.

Snakemake's own lock is a file that outlives its writer: after SIGKILL a person would have to find
out about `--unlock`. This one is held by an open file, so the kernel lets go of it whenever its
holder ends, however it ends.
"""

import fcntl
import os
import platform
import time
from pathlib import Path
from typing import TextIO

from lockstep.errors import UserError

_held: list[TextIO] = []  # open as long as this process lives


def take(folder: Path) -> None:
    """Take the lease of a study's folder, until this process ends.

    Raises:
        UserError: another process has it; says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lease = open(folder / ".workflow", "a+")  # noqa: SIM115  # held until the process ends
    try:
        fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lease.seek(0)
        holder = lease.read().strip() or "another process"
        lease.close()
        raise UserError(
            f"{folder}: another workflow is at work here ({holder}); wait for it, or stop it"
        ) from error
    lease.truncate(0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    print(f"process {os.getpid()} on {platform.node()} since {since}", file=lease, flush=True)
    _held.append(lease)
