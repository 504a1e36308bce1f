"""Keeps a second workflow off a study's folder, and lets the same command go on after a kill.

A workflow holds a lock of the operating system on a file in the study's folder, which ends with the
process however it ends. Not every network file system carries such locks from one login node to the
other, so the holder also says in that file who it is and shows twice a minute that it lives.
"""

import atexit
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from lockstep.errors import UserError

NAME = ".workflow"
HEARTBEAT = 30.0  # seconds between two signs of life
SILENT = 120.0  # seconds without one after which a holder on another host counts as dead

# Descriptors, open as long as this process lives, each with what ends its signs of life.
_held: list[tuple[int, threading.Event, threading.Thread]] = []


def take(folder: Path) -> None:
    """Hold a study's folder until this process ends.

    Raises:
        UserError: another workflow holds it; says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    # With the umask of a group's folder another user can hold it next.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    locked = True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _holder(path)
        os.close(descriptor)
        raise UserError(_refusal(folder, holder)) from None
    except OSError:
        locked = False  # no locks on this file system: the signs of life must do
    holder = _holder(path)
    if holder and _lives(path, holder, locked=locked):
        os.close(descriptor)
        raise UserError(_refusal(folder, holder))
    me = {"host": socket.gethostname(), "process": os.getpid(), "since": time.time()}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(me).encode(), 0)
    released = threading.Event()
    life = threading.Thread(target=_beat, args=(descriptor, released), daemon=True)
    life.start()
    _held.append((descriptor, released, life))
    atexit.register(release)  # or other hosts would wait until it counts as dead


def _beat(descriptor: int, released: threading.Event) -> None:
    while not released.wait(HEARTBEAT):
        os.utime(descriptor)


def release() -> None:
    """Let go of what this process holds."""
    while _held:
        descriptor, released, life = _held.pop()
        released.set()
        life.join()  # or it would touch whatever file has the number next
        os.ftruncate(descriptor, 0)
        os.close(descriptor)


def _holder(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}


def _lives(path: Path, holder: dict[str, Any], *, locked: bool) -> bool:
    """Whether the one that wrote the file is still there, where its lock may not have told."""
    here = holder["host"] == socket.gethostname()
    if here and (locked or not Path(f"/proc/{holder['process']}").exists()):
        return False  # on the same host the lock tells, and else the list of processes
    # By the file system's clock, as hosts' clocks differ.
    probe = path.with_name(f"{NAME}-{os.getpid()}")
    probe.touch()
    try:
        return probe.stat().st_mtime - path.stat().st_mtime < SILENT
    finally:
        probe.unlink()


def _refusal(folder: Path, holder: dict[str, Any]) -> str:
    if not holder:
        return f"{folder} is in use by another workflow"
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(holder["since"]))
    elsewhere = holder["host"] != socket.gethostname()
    remedy = (
        f"wait for it, or if it is dead try again in {SILENT / 60:.0f} minutes"
        if elsewhere
        else "wait for it, or stop it with Ctrl-C or kill"
    )
    return (
        f"{folder} is in use by a workflow on {holder['host']} (process {holder['process']}, since "
        f"{since}); {remedy}"
    )
