"""Keeps Apptainer from outliving who started it: `python -m lockstep.images.watch COMMAND…`."""

import os
import signal
import sys
import time
from pathlib import Path

WATCH = 0.5  # seconds


def end_with_parent() -> None:
    """Have this process told to stop (SIGTERM) when its launcher ends, however it ends.

    The launcher is the one that says so, which may have ended before we are here; else the parent.
    The kernel's own way (PR_SET_PDEATHSIG) is lost when Apptainer makes its user namespace. So a
    process beside this one looks twice a second; it is nobody's child and ends with this one.
    """
    parent, me = int(os.environ.get("LOCKSTEP_LAUNCHER", os.getppid())), os.getpid()
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    if os.fork():
        os._exit(0)
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):  # whoever reads our output must not wait for this one
        os.dup2(nowhere, descriptor)
    while Path(f"/proc/{me}").exists():
        if not Path(f"/proc/{parent}").exists():
            os.kill(me, signal.SIGTERM)
            break
        time.sleep(WATCH)
    os._exit(0)


if __name__ == "__main__":
    end_with_parent()
    os.execvp(sys.argv[1], sys.argv[1:])
