"""The faults of `make drill-site`, one entry each."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lockstep.cluster import watch
from tests.conftest import wait_for

if TYPE_CHECKING:
    from tests.cluster.drill_site import Scene

Act = Callable[["Scene"], None]
FREE = "32768-60999"  # ports that programs get; those of SLURM's are below (box.py)


def nothing(scene: "Scene") -> None:
    """Do nothing: the fault is over by itself."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens to a study.

    Attributes:
        name: for people.
        inject: lets it happen.
        told: pattern of the line that names it; empty where nobody needs to know.
        undo: ends it.
        lasts: seconds until then, at least.
        before: let it happen before the workflow starts, and not while the run trains.
        status: of the workflow at its end.
        variant: `torch` or `jax`.
        options: of Snakemake.
    """

    name: str
    inject: Act
    told: str = ""
    undo: Act = nothing
    lasts: float = 0.0
    before: bool = False
    status: int = 0
    variant: str = "torch"
    options: tuple[str, ...] = ()


# Daemons -----------------------------------------------------------------------------------------


def child(scene: "Scene", name: str) -> int:
    """Return the process of a daemon or host, as this machine numbers it."""
    pid, _ = scene.box._processes()[name]
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def stop(name: str) -> Act:
    return lambda scene: scene.box.stop(name)


def controller(scene: "Scene") -> None:
    scene.box.start_controller()
    wait_for(lambda: "UP" in scene.box.slurm("scontrol", "ping"), timeout=60)


def signals(name: str, number: signal.Signals) -> Act:
    return lambda scene: os.kill(child(scene, name), number)


def forgets(scene: "Scene") -> None:
    """The controller crashes, and its state of this job is lost."""
    scene.box.stop("head")
    spool = scene.box.folder / "root" / "var" / "spool" / "slurmctld"
    subprocess.run(["rm", "-rf", spool], check=True)
    spool.mkdir()
    controller(scene)


def munge(scene: "Scene") -> None:
    munged = "mkdir -p /run/munge && chown munge: /run/munge && exec runuser -u munge -- "
    scene.box.start("munge", "head", f"{munged} munged --foreground --force")


# SLURM's programs --------------------------------------------------------------------------------


def program(scene: "Scene", name: str) -> Path:
    return scene.box.folder / "root" / "usr" / "bin" / name


def replaced(names: tuple[str, ...], script: str) -> Act:
    """Put a script in the place of programs; empty for none at all."""

    def act(scene: "Scene") -> None:
        for name in names:
            path = program(scene, name)
            path.rename(path.with_name(f"{name}.real"))
            if script:
                path.write_text(f"#!/bin/sh\n{script}\n")
                path.chmod(0o755)

    return act


def put_back(*names: str) -> Act:
    def act(scene: "Scene") -> None:
        for name in names:
            path = program(scene, name)
            path.with_name(f"{name}.real").rename(path)

    return act


def administrator(*command: str) -> Act:
    """Run a command as root on the head, for the job that trains."""

    def act(scene: "Scene") -> None:
        line = [part.format(job=scene.job()) for part in command]
        done = subprocess.run(
            scene.box.line("head", *line, as_root=True), capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    return act


def person(*command: str) -> Act:
    return lambda scene: print(scene.box.slurm(*(x.format(job=scene.job()) for x in command)))


resumes = administrator("scontrol", "resume", "{job}")


# The run's own processes and its nodes -----------------------------------------------------------


def rank(number: int, what: signal.Signals) -> Act:
    return lambda scene: os.kill(scene.ranks()[number], what)


def on_switch(scene: "Scene", node: str, state: str) -> None:
    switch = f"{scene.box.tag}-switch"
    subprocess.run(["ip", "-n", switch, "link", "set", f"to-{node}", state], check=True)


def loses_node(scene: "Scene") -> None:
    job = scene.job()
    scene.box.stop("node2")
    states = lambda: scene.box.slurm("squeue", "--noheader", "--format=%T", "--jobs", job)  # noqa: E731
    wait_for(lambda: "PENDING" in states(), timeout=120)
    scene.box.start_node("node2")
    scene.box.wait_for_nodes()
    starts_now(scene, job)


def requeues(scene: "Scene") -> None:
    job = scene.job()
    person("scontrol", "requeue", job)(scene)
    starts_now(scene, job)


def starts_now(scene: "Scene", job: str) -> None:
    """Let a job start of which the workflow has seen that it was queued again.

    SLURM holds it back for two minutes; nobody needs to wait for all of them here.
    """
    time.sleep(watch.PERIOD + 5)
    person("scontrol", "update", f"JobId={job}", "StartTime=now")(scene)


def answers_lost(action: str) -> Act:
    """Lose what node1 answers on a free port to whoever connects from node2."""

    def act(scene: "Scene") -> None:
        to = ("to", scene.box.address("node2"), "ipproto", "tcp", "sport", FREE, "dport", FREE)
        line = ["ip", "-n", f"{scene.box.tag}-node1", "rule", action, *to, "blackhole"]
        subprocess.run(line, check=True)

    return act


def in_mounts(scene: "Scene", host: str, *command: str) -> None:
    """Run a command of a host's among its mounts, and its processes: mount asks /proc for them."""
    enter = ["nsenter", "--target", str(child(scene, host)), "--mount", "--pid"]
    subprocess.run([*enter, *command], check=True)


def clock(ahead: int) -> Act:
    """Set Python's clock on node2."""

    def act(scene: "Scene") -> None:
        (name,) = Path(sys.prefix).glob("lib/python3*/site-packages/lockstep.pth")
        lines = name.read_text().splitlines()[:1]
        if ahead:
            skewed = f"(lambda true: lambda: true() + {ahead})(time.time)"
            lines.append(f"import time; time.time = {skewed}")
        changed = scene.box.shared / f"ahead-{ahead}.pth"
        changed.write_text("\n".join(lines) + "\n")
        in_mounts(scene, "node2", "/bin/mount", "--bind", str(changed), str(name))

    return act


def read_only(scene: "Scene") -> None:
    """Put the results' folder over itself, as one in which nothing can be written, on node1.

    The mount itself would stay as it is as long as a file in it is written to.
    """
    results = str(scene.results)
    in_mounts(scene, "node1", "/bin/mount", "--bind", results, results)
    in_mounts(scene, "node1", "/bin/mount", "-o", "remount,bind,ro", results)


def writable(scene: "Scene") -> None:
    in_mounts(scene, "node1", "/bin/umount", "--lazy", str(scene.results))


# People ------------------------------------------------------------------------------------------


def killed_and_started_again(scene: "Scene") -> None:
    assert scene.workflow
    administrator("scontrol", "suspend", "{job}")(scene)  # it must not end meanwhile
    scene.cluster.kill(scene.workflow)
    scene.start()


def interrupted(scene: "Scene") -> None:
    """Ctrl-C on the login node, and the same command again."""
    assert scene.workflow
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"runs" in words and any(word.endswith(b"bin/snakemake") for word in words):
            os.kill(int(path.name), signal.SIGINT)
    scene.workflow.wait(timeout=120)
    scene.start()


def another_person(scene: "Scene") -> None:
    """The workflow is killed, and another person starts the same study in the same folder."""
    assert scene.workflow
    administrator("scontrol", "suspend", "{job}")(scene)  # it must not end meanwhile
    scene.cluster.kill(scene.workflow)
    subprocess.run(["chmod", "-R", "a+rwX", scene.cluster.clone], check=True)
    command = scene.cluster.command(scene.config)
    become = ("setpriv", "--reuid", "1001", "--regid", "1001", "--clear-groups")
    enter = 'export PATH="$0:$PATH" HOME=/tmp; cd "$1" && exec "${@:2}"'
    line = scene.box.line(
        *("login", "bash", "-c", enter, str(Path(sys.prefix) / "bin"), str(scene.cluster.clone)),
        *(*become, command[0], "runs", *command[1:]),
        as_root=True,
    )
    with open(scene.log, "a") as stream:
        done = subprocess.run(line, stdout=stream, stderr=stream, timeout=120)
    assert done.returncode == 2, scene.said()
    resumes(scene)
    scene.start()


SILENT = "SLURM does not answer"
KILLED = "has failed: signal 9 .rank 1"
FAILS = "exec >&2; echo 'slurm_load_jobs error: Unable to contact slurm controller'; exit 1"

FAULTS = [
    Fault(name="controller away", inject=stop("head"), told=SILENT, undo=controller, lasts=35),
    Fault(
        name="controller frozen",
        inject=signals("head", signal.SIGSTOP),
        told=SILENT,
        undo=signals("head", signal.SIGCONT),
        lasts=35,
    ),
    Fault(name="controller restarted", inject=lambda scene: scene.box.restart_controller()),
    Fault(name="controller forgets the job", inject=forgets, told="is unknown to SLURM"),
    Fault(
        name="squeue fails for a minute",
        inject=replaced(("squeue",), FAILS),
        told=SILENT,
        undo=put_back("squeue"),
        lasts=35,
    ),
    Fault(
        name="squeue hangs for a minute",
        inject=replaced(("squeue",), "exec sleep 600"),
        told=SILENT,
        undo=put_back("squeue"),
        lasts=35,
    ),
    Fault(
        name="squeue warns with WORD=WORD",
        inject=replaced(
            ("squeue", "scontrol"), 'echo "warning: WORD=WORD" >&2; exec "$0.real" "$@"'
        ),
        undo=put_back("squeue", "scontrol"),
        before=True,
    ),
    Fault(name="munge away", inject=stop("munge"), told=SILENT, undo=munge, lasts=30),
    Fault(
        name="sbatch times out",
        inject=replaced(
            ("sbatch",),
            'case "$*" in *--test-only*) exec "$0.real" "$@";; esac; '
            "echo 'sbatch: error: Batch job submission failed: Socket timed out' >&2; exit 1",
        ),
        told="cannot be submitted now .*Socket timed out",
        undo=put_back("sbatch"),
        before=True,
        lasts=30,
    ),
    Fault(
        name="submit limit",
        inject=replaced(
            ("sbatch",),
            'case "$*" in *--test-only*) exec "$0.real" "$@";; esac; '
            "echo 'sbatch: error: QOSMaxSubmitJobPerUserLimit' >&2; exit 1",
        ),
        told="cannot be submitted now .*QOSMaxSubmit",
        undo=put_back("sbatch"),
        before=True,
        lasts=30,
    ),
    Fault(
        name="sbatch fails although the job was taken",
        inject=replaced(
            ("sbatch",),
            'case "$*" in *--test-only*) exec "$0.real" "$@";; esac; "$0.real" "$@" >/dev/null; '
            "echo 'sbatch: error: Batch job submission failed: Socket timed out' >&2; exit 1",
        ),
        told="accepted although sbatch failed",
        undo=put_back("sbatch"),
        before=True,
    ),
    Fault(
        name="partition closed to this user",
        inject=administrator("scontrol", "update", "PartitionName=gpu", "AllowGroups=root"),
        told="lockstep: error: .*open to the groups root alone",
        undo=administrator("scontrol", "update", "PartitionName=gpu", "AllowGroups=ALL"),
        before=True,
        status=2,
    ),
    Fault(
        name="no sacct, no sacctmgr, no sshare",
        inject=replaced(("sacct", "sacctmgr", "sshare"), ""),
        undo=put_back("sacct", "sacctmgr", "sshare"),
        before=True,
    ),
    Fault(name="job cancelled", inject=person("scancel", "{job}"), told="stopped at step"),
    Fault(name="job requeued", inject=requeues, told="is queued again|stopped at step"),
    Fault(
        name="job suspended and resumed",
        inject=administrator("scontrol", "suspend", "{job}"),
        undo=resumes,
        lasts=15,
    ),
    Fault(
        name="batch script killed",
        inject=person("scancel", "--full", "--signal=KILL", "{job}"),
        told="has ended as|has failed|stopped at step",
    ),
    Fault(
        name="a rank killed", inject=rank(1, signal.SIGKILL), told="has failed: signal 9 .rank 1"
    ),
    Fault(
        name="a rank killed (JAX)",
        inject=rank(1, signal.SIGKILL),
        told=KILLED,
        variant="jax",
    ),
    Fault(name="a rank stopped", inject=rank(1, signal.SIGSTOP), told="has failed: "),
    Fault(
        name="a rank stopped (JAX)",
        inject=rank(1, signal.SIGSTOP),
        told="has failed: ",
        variant="jax",
    ),
    Fault(name="a node lost", inject=loses_node, told="is queued again"),
    Fault(name="daemons reconfigured", inject=administrator("scontrol", "reconfigure")),
    Fault(
        name="network between the nodes cut",
        inject=lambda scene: on_switch(scene, "node2", "down"),
        told="has failed: |is queued again",
        undo=lambda scene: on_switch(scene, "node2", "up"),
    ),
    Fault(
        name="ports between the nodes blocked",
        inject=answers_lost("add"),
        told="node2 cannot reach node1",
        undo=answers_lost("del"),
        before=True,
    ),
    Fault(
        name="a node's clock two hours ahead",
        inject=clock(7200),
        told=r"the clock of node2 is \d+ s ahead",
        undo=clock(0),
        before=True,
    ),
    Fault(
        name="results read-only on the first node",
        inject=read_only,
        told="[Rr]ead-only file system|has ended as",
        undo=writable,
    ),
    Fault(
        name="Snakemake killed", inject=killed_and_started_again, told="is adopted", undo=resumes
    ),
    Fault(
        name="Snakemake killed, scripts on standard input",
        inject=killed_and_started_again,
        told="is adopted",
        undo=resumes,
        options=("--slurm-pass-command-as-script",),
    ),
    Fault(name="Ctrl-C", inject=interrupted, told="stopped; the same command goes on"),
    Fault(
        name="another person's job", inject=another_person, told="job .* of lockstep makes train"
    ),
]
