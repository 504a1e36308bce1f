"""Do the nodes of a job reach each other, and how far apart are their clocks?

At the roll call each node connects to a free port of the first one, as the processes of a run will,
and is told the time there.
"""

import contextlib
import socket
import time
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.errors import UserError

PATIENCE = 60.0  # seconds until the other nodes have come, or have written that they cannot
HEAD_START = 1.0  # seconds of the first node: NFS remembers long that a file was not there
CONNECT = 15.0  # seconds for a connection between two nodes
ADDRESS = "first.json"


def receive(folder: Path, host: str, nodes: int) -> None:
    """Be the first node: tell the time to all others, or wait until they have written why not.

    Args:
        folder: that all nodes share.
        host: address under which the others reach this node.
        nodes: of the job.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + PATIENCE
    with socket.create_server(("", 0), family=family) as listener:
        listener.settimeout(0.2)
        files.write_json(folder / ADDRESS, {"host": host, "port": listener.getsockname()[1]})
        told = 1  # this one
        while told < nodes and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                caller, _ = listener.accept()
                with caller:
                    caller.sendall(repr(time.time()).encode())
                told += 1
            if len(list(folder.glob("node-*.json"))) >= nodes:
                return


def visit(folder: Path) -> dict[str, Any]:
    """Be another node: connect to the first one.

    Returns:
        `clock_ahead`, seconds by which this node's clock is ahead of the first one's; or
        `unreachable`, where the first node is and why this one does not reach it.
    """
    try:
        first = _first(folder)
    except TimeoutError as error:
        return {"unreachable": str(error)}
    try:
        with socket.create_connection((first["host"], first["port"]), timeout=CONNECT) as call:
            told = call.recv(64)
        return {"clock_ahead": time.time() - float(told)}
    except (OSError, ValueError) as error:
        return {"unreachable": f"{first['host']}, port {first['port']}: {error}"}


def _first(folder: Path) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        time.sleep(HEAD_START)
        with contextlib.suppress(UserError):
            return dict(files.read_json(folder / ADDRESS))
    raise TimeoutError(f"it did not write its address to {folder} within {PATIENCE:.0f} s")
