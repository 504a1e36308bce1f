"""How the processes of one start find each other: through a file, without a fixed port.

Rank 0 takes a port that is free, and publishes it in a folder that only this start uses.
"""

import socket
import time
from pathlib import Path

from lockstep import files
from lockstep.engines.contract import Topology

TIMEOUT = 120.0  # seconds; imports of a large framework from a slow file system take their time


def free_port(host: str) -> int:
    """Return a TCP port that is free on `host` at this moment."""
    with socket.socket() as listener:
        listener.bind((host, 0))
        return listener.getsockname()[1]


def publish(topology: Topology, port: int) -> None:
    """Tell the other ranks, as rank 0, where to come to."""
    files.write_bytes(_path(topology), f"{topology.host} {port}".encode())


def find(topology: Topology) -> tuple[str, int]:
    """Return rank 0's host and port, waiting until it has published them.

    Raises:
        TimeoutError: rank 0 did not publish in time.
    """
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline:
        try:
            host, port = _path(topology).read_text().split()
            return host, int(port)
        except FileNotFoundError:
            time.sleep(0.01)
    raise TimeoutError(f"rank 0 did not come to {topology.rendezvous} within {TIMEOUT:.0f} s")


def _path(topology: Topology) -> Path:
    if topology.rendezvous is None:
        raise ValueError("several processes need a rendezvous folder")
    return topology.rendezvous / "address"
