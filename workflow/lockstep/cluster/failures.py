"""Which process of a run failed first? The others follow, or are killed for it.

Each process that fails notes that in the folder where those of its start meet, as does the launcher
of one that could not. Standard library only.
"""

import platform
import time
from collections.abc import Mapping
from pathlib import Path

from lockstep import files

NAME = "failed-{:05d}.json"  # by rank
PEERS = 2.0  # seconds in which others notice that a process is gone, before its launcher does


def note(environment: Mapping[str, str], status: int, said: str | None = None) -> None:
    """Note that a process has failed, unless it has done so itself.

    Args:
        environment: of the process, as its launcher made it.
        status: exit status, 128 + N for a signal N.
        said: the error, in one line.
    """
    folder, rank = environment.get("LOCKSTEP_RENDEZVOUS"), int(environment.get("LOCKSTEP_RANK", 0))
    path = Path(folder or ".") / NAME.format(rank)
    if folder is None or path.exists():
        return
    about = {"at": time.time(), "rank": rank, "node": platform.node(), "status": status}
    try:
        files.write_json(path, about | {"said": said})
    except OSError:  # the folder went with its start, or the disk is full: it is a note
        return


def first(folder: Path) -> str | None:
    """Return what the process that failed first said of it; None if none did.

    One that was killed is the cause of errors that its peers see at that moment.
    """
    found = [files.read_json(path) for path in folder.glob("failed-*.json")]
    if not found:
        return None
    failed = min(found, key=lambda f: f["at"] - (PEERS if f["status"] > 128 else 0.0))
    if failed["status"] > 128:
        said = f"signal {failed['status'] - 128}"
    else:
        said = failed["said"] or f"exit status {failed['status']}"
    return f"{said} (rank {failed['rank']} on {failed['node']})"
