"""One node's agent in a job step: `python -m lockstep.cluster.node RENDEZVOUS`.

`lockstep.cluster.start` starts one on each node of a SLURM job. It sees to it that the job is the
one asked for, says what the node is, and launches this node's processes. Standard library only.
"""

import os
import socket
import struct
import sys
from pathlib import Path

from lockstep import files, machine
from lockstep.cluster import meeting
from lockstep.cluster.launch import AGREED, Part, launch
from lockstep.cluster.start import REFUSED, Start, read
from lockstep.errors import UserError
from lockstep.interruption import die_with_parent


def main(rendezvous: Path) -> int:
    """Do this node's part; returns 0 unless its processes ended in a way of their own."""
    die_with_parent()
    start = read(rendezvous)
    number, address = guard(start), own_address()
    seen = {} if start.command or not number else meeting.visit(rendezvous)
    files.write_json(rendezvous / f"node-{number:04d}.json", {"facts": machine.facts(), **seen})
    status = 0
    if not start.command and not number and start.nodes > 1:
        meeting.receive(rendezvous, address, start.nodes)
    if start.command:
        use_interface_of(address)
        status = launch(
            start.command,
            processes=start.processes,
            threads=start.threads,
            devices=start.devices,
            deadline=start.deadline + start.ahead[number] if start.deadline else None,
            timeout=start.timeout,
            part=Part(
                first_rank=number * start.processes,
                world_size=start.nodes * start.processes,
                rendezvous=rendezvous,
                host=address,
            ),
        )
    if status and status not in AGREED:
        return status
    # Not as an exit status: SLURM would kill the step's other nodes, of which one still saves.
    files.write_json(rendezvous / f"status-{number:04d}.json", status)
    return 0


def guard(start: Start) -> int:
    """Return this node's number, if the step is what was asked for.

    Raises:
        UserError: says what was asked for and what is there.
    """
    found = {
        "nodes": int(os.environ["SLURM_NNODES"]),
        "tasks": int(os.environ.get("SLURM_STEP_NUM_TASKS", os.environ.get("SLURM_NTASKS", "0"))),
    }
    if found != {"nodes": start.nodes, "tasks": start.nodes}:
        raise UserError(
            f"the run asks for {start.nodes} nodes with one task each, this step has "
            f"{found['nodes']} nodes and {found['tasks']} tasks"
        )
    if not start.gpus:
        # A site that confines no devices shows GPUs also to a job that asked for none.
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    gpus = machine.visible_gpus()
    if start.gpus and len(gpus) != start.gpus:
        raise UserError(
            f"the run asks for {start.gpus} GPUs a node, {socket.gethostname()} shows "
            f"{len(gpus)} ({', '.join(gpus) or 'none'}); gpus_as in profiles/slurm/profile.yaml "
            "says how GPUs are asked for"
        )
    return int(os.environ["SLURM_NODEID"])


def own_address() -> str:
    """Return this node's address on the network that SLURM itself uses between nodes."""
    launcher = os.environ.get("SLURM_LAUNCH_NODE_IPADDR", "")
    family = socket.AF_INET6 if ":" in launcher else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((launcher, 9))  # nothing is sent; the kernel chooses a route
            address = str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()
    # The step was launched from this very node, whose route to itself says nothing of the others'.
    return launcher if address.startswith("127.") else address


def use_interface_of(address: str) -> None:
    """Have gloo use the interface with this address: it would take what the host's name means,
    which on many systems is 127.0.1.1.
    """
    import fcntl

    for _, name in socket.if_nameindex():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                answer = fcntl.ioctl(probe, 0x8915, struct.pack("256s", name.encode()[:15]))
            except OSError:  # no address of this family
                continue
        if socket.inet_ntoa(answer[20:24]) == address:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            return


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except UserError as error:
        print(f"lockstep: error: {error}", file=sys.stderr)
        sys.exit(REFUSED)
