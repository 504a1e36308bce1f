"""A SLURM cluster in a folder of this machine, for tests and for people to try the profile on.

    python -m tests.cluster.box up FOLDER      a head, three nodes, a login node (two minutes)
    python -m tests.cluster.box shell FOLDER   a shell on the login node, as an ordinary user
    python -m tests.cluster.box down FOLDER    stop it; its root file system stays for next time
    python -m tests.cluster.box try FOLDER     all three, with a clone of this repository

Needs root and mmdebstrap on Debian or Ubuntu. A host of the cluster is a network namespace and a
set of processes in the file system that tests/cluster/root.sh makes; `node1` and `node2` have two
simulated GPUs each, `node3` has none. The login node has this machine's own network. The Python
environment that runs this script is mounted into all of them; FOLDER/shared and the cache of images
in FOLDER/cache are what they share.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE / "root.sh"
USER = 1000  # of root.sh's ordinary user
NODES = {"node1": 2, "node2": 2, "node3": 0}  # GPUs of each
HOSTS = ("head", *NODES)
CPUS = 4  # of each node; SLURM believes it
PATIENCE = 300.0  # seconds for the cluster to come up

SLURM_CONF = """\
ClusterName=box
SlurmctldHost=head({head})
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd-%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
SrunPortRange=20000-21999
ReturnToService=2
MinJobAge=300
SlurmdTimeout=15
SchedulerParameters=bf_interval=5,sched_min_interval=100000
GresTypes=gpu
{nodes}
PartitionName=gpu Nodes=node[1-2] Default=YES MaxTime=01:00:00
PartitionName=cpu Nodes=node3 MaxTime=01:00:00
PartitionName=all Nodes=node[1-3] MaxTime=01:00:00
"""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A cluster in a folder."""

    folder: Path

    @property
    def tag(self) -> str:
        """What its namespaces and interfaces are called by: short, as interfaces' names are."""
        return "ls" + hashlib.sha256(str(self.folder).encode()).hexdigest()[:4]

    @property
    def shared(self) -> Path:
        """The folder that all hosts share; it has the same path everywhere."""
        return self.folder / "shared"

    @property
    def images(self) -> Path:
        """The cache of built images, which all hosts share too; it stays for next time."""
        return self.folder / "cache" / "images"

    @property
    def logs(self) -> Path:
        """What the daemons say."""
        return self.folder / "logs"

    @property
    def state(self) -> Path:
        """The processes that were started, by host."""
        return self.folder / "processes.json"

    def address(self, host: str) -> str:
        """A host's address; the login node is the first."""
        number = ("login", *HOSTS).index(host) + 1
        return f"10.{200 + int(self.tag[2:4], 16) % 50}.{int(self.tag[4:6], 16)}.{number}"

    # Commands on it --------------------------------------------------------------------------

    def line(self, host: str, *command: str, as_root: bool = False) -> list[str]:
        """Return the command line that runs a command on a host."""
        network = [] if host == "login" else ["--netns", f"{self.tag}-{host}"]
        binds = [part for path in self._binds() for part in ("--bind", str(path))]
        user = ["--as-root"] if as_root else []
        own = [str(ROOT), "run", str(self.folder), "--hostname", host]
        return [*own, *network, *binds, *user, "--", *command]

    def login(self, *command: str, folder: Path | None = None) -> list[str]:
        """Return the command line that runs a command on the login node, in a shared folder."""
        enter = 'export PATH="$0:$PATH"; cd "$1" && exec "${@:2}"'
        programs = str(Path(sys.prefix) / "bin")
        return self.line(
            "login", "bash", "-c", enter, programs, str(folder or self.shared), *command
        )

    def shell(self, folder: Path | None = None) -> list[str]:
        """Return the command line of a shell on the login node, where `python -m lockstep` works.

        This machine's own repository, which the environment knows, is not mounted there.
        """
        package = f"PYTHONPATH={self.shared / 'clone' / 'workflow'}"
        return self.login("env", package, "bash", folder=folder)

    def slurm(self, *command: str, timeout: float = 300) -> str:
        """Run a SLURM command on the login node; returns what it printed."""
        done = subprocess.run(
            self.login(*command), capture_output=True, text=True, timeout=timeout, check=False
        )
        return done.stdout + done.stderr

    def _binds(self) -> list[Path]:
        """Return the folders that every host has: the shared ones, and this Python's."""
        return [self.shared, self.images, *python_folders()]

    def clone(self, repository: Path) -> Path:
        """Copy what git tracks or would track of a repository, as its user would clone it."""
        target = self.shared / "clone"
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(listing, cwd=repository, capture_output=True, text=True, check=True)
        for name in filter(None, names.stdout.split("\0")):
            source, copy = repository / name, target / name
            if source.exists() or source.is_symlink():
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.unlink(missing_ok=True)
                shutil.copy2(source, copy, follow_symlinks=False)
        subprocess.run(["chown", "-R", f"{USER}:{USER}", target], check=True)
        return target

    # Up and down -----------------------------------------------------------------------------

    def up(self) -> None:
        """Start it, with its root file system if that is not there yet."""
        subprocess.run([ROOT, "make", self.folder], check=True, stdin=subprocess.DEVNULL)
        self.down()
        for path in (self.shared, self.images, self.logs):
            path.mkdir(parents=True, exist_ok=True)
        for path in (self.shared, self.images):
            os.chown(path, USER, USER)
        self._configure()
        self._connect()
        # One munged serves all hosts: its socket lies in the file system that they share.
        munged = "mkdir -p /run/munge && chown munge: /run/munge && exec runuser -u munge -- "
        self.start("munge", "head", f"{munged} munged --foreground --force")
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self.wait_for_nodes()

    def down(self) -> None:
        """Stop whatever of it runs, and take its network away."""
        for name in self._processes():
            self.stop(name)
        self.state.unlink(missing_ok=True)
        # Explicitly: with its namespace alone it would go a little later.
        if Path(f"/sys/class/net/{self.tag}").exists():
            _ip("link", "delete", self.tag)
        for name in (*HOSTS, "switch"):
            if Path(f"/run/netns/{self.tag}-{name}").exists():
                subprocess.run(["ip", "netns", "delete", f"{self.tag}-{name}"], check=True)

    def start(self, name: str, host: str, command: str) -> None:
        """Start a daemon on a host; its processes end with the one that is noted down."""
        with open(self.logs / f"{name}.log", "a") as log:
            process = subprocess.Popen(
                self.line(host, "bash", "-c", command, as_root=True),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.state.write_text(
            json.dumps(self._processes() | {name: [process.pid, _born(process.pid)]})
        )

    def start_controller(self) -> None:
        """Start the controller, the first time or after it was stopped."""
        self.start("head", "head", "exec slurmctld -D")

    def restart_controller(self) -> None:
        """Restart the controller as an administrator does: it saves what it knows before."""
        pid, _ = self._processes()["head"]
        (controller,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(controller), signal.SIGTERM)
        while Path(f"/proc/{controller}").exists():
            time.sleep(0.02)
        self.start_controller()

    def start_node(self, node: str) -> None:
        """Start a node, the first time or after it was stopped."""
        gpus = "".join(f"mknod -m 0666 /dev/gpu{k} c 1 3; " for k in range(NODES[node]))
        # The shell stays, to reap what SLURM's steps leave behind.
        self.start(node, node, f"{gpus}slurmd -D -N {node} & wait")

    def stop(self, name: str) -> None:
        """Stop a host or a daemon as a power failure would, and wait until it is gone."""
        pid, born = self._processes()[name]
        if born and _born(pid) == born:
            os.kill(pid, signal.SIGKILL)
            while _born(pid) == born and not _dead(pid):
                time.sleep(0.02)

    def wait_for_nodes(self, *nodes: str) -> None:
        """Wait until nodes are idle."""
        wanted = set(nodes or NODES)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            answer = self.slurm("sinfo", "--noheader", "--Node", "--format=%N %t", timeout=PATIENCE)
            rows = [line.split() for line in answer.splitlines()]
            if wanted <= {row[0] for row in rows if len(row) == 2 and row[1] == "idle"}:
                return
            time.sleep(0.3)
        raise TimeoutError(f"the nodes are not idle after {PATIENCE:.0f} s:\n{answer}")

    def _processes(self) -> dict[str, list[int]]:
        return json.loads(self.state.read_text()) if self.state.is_file() else {}

    def _configure(self) -> None:
        root = self.folder / "root"
        nodes = [
            f"NodeName={name} NodeAddr={self.address(name)} CPUs={CPUS} RealMemory=8000"
            + (f" Gres=gpu:{gpus}" if gpus else "")
            for name, gpus in NODES.items()
        ]
        conf = root / "etc" / "slurm"
        conf.mkdir(exist_ok=True)
        text = SLURM_CONF.format(head=self.address("head"), nodes="\n".join(nodes))
        (conf / "slurm.conf").write_text(text)
        (conf / "cgroup.conf").write_text("CgroupPlugin=disabled\n")  # hosts see no cgroup mount
        devices = [
            f"NodeName={name} Name=gpu File=/dev/gpu[0-{gpus - 1}]"
            for name, gpus in NODES.items()
            if gpus
        ]
        (conf / "gres.conf").write_text("\n".join(devices) + "\n")
        hosts = [f"{self.address(host)} {host}" for host in ("login", *HOSTS)]
        (root / "etc" / "hosts").write_text("127.0.0.1 localhost\n" + "\n".join(hosts) + "\n")
        # Jobs of an earlier cluster in this folder are none of this one's.
        for name in ("slurmctld", *(f"slurmd-{node}" for node in NODES)):
            spool = root / "var" / "spool" / name
            subprocess.run(["rm", "-rf", "--one-file-system", spool], check=True)
            spool.mkdir()
        key = root / "etc" / "munge" / "munge.key"
        if not key.exists():
            key.write_bytes(os.urandom(1024))
        subprocess.run(["chroot", root, "chown", "munge:", "/etc/munge/munge.key"], check=True)
        key.chmod(0o400)
        for path in python_folders():  # every user must come through to them
            for parent in reversed((root / path.relative_to("/")).parents):
                if parent.is_relative_to(root):
                    parent.mkdir(exist_ok=True)
                    parent.chmod(parent.stat().st_mode | 0o111)

    def _connect(self) -> None:
        """A switch in a namespace of its own, with a cable to each host and to this machine."""
        switch = f"{self.tag}-switch"
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        _ip("-n", switch, "link", "set", "bridge", "up")
        for host in ("login", *HOSTS):
            if host == "login":
                here, name = [], self.tag
            else:
                _ip("netns", "add", f"{self.tag}-{host}")
                here, name = ["-n", f"{self.tag}-{host}"], "eth0"
                _ip(*here, "link", "set", "lo", "up")
            _ip(*here, "link", "add", name, "type", "veth", "peer", f"to-{host}", "netns", switch)
            _ip(*here, "address", "add", f"{self.address(host)}/24", "dev", name)
            _ip(*here, "link", "set", name, "up")
            _ip("-n", switch, "link", "set", f"to-{host}", "master", "bridge", "up")


def python_folders() -> list[Path]:
    """Return where this Python environment lies: a virtual one and the one that it is made from."""
    folders = dict.fromkeys([Path(sys.prefix), Path(sys.base_prefix)])
    if Path("/usr") in folders:
        raise SystemExit(
            "box.py: this Python is the system's own; run it in one of pyenv, uv, conda"
        )
    return list(folders)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _born(pid: int) -> int:
    """Return when a process started (clock ticks since boot), to know it from a later one."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return 0


def _dead(pid: int) -> bool:
    """Whether a process is a zombie, which this script's own children become; reaps it."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return False
    return not Path(f"/proc/{pid}").exists()


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["up", "down", "shell", "try"])
    parser.add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    box = Box(folder=options.folder.absolute())
    if os.getuid():
        parser.error("it takes root: namespaces, mounts and device files")
    if options.action in ("up", "try"):
        box.up()
    if options.action == "try":
        clone = box.clone(HERE.parents[1])
        print(
            f"This is the login node of a SLURM cluster, in a clone of the repository:\n{clone}\n"
            "  sinfo\n"
            "  snakemake --profile slurm --configfile demo/config.yaml\n"
            "Leave it with exit; the cluster ends then."
        )
        try:
            return subprocess.run(box.shell(clone)).returncode
        finally:
            box.down()
    if options.action == "shell":
        return subprocess.run(box.shell()).returncode
    if options.action == "down":
        box.down()
    return 0


if __name__ == "__main__":
    sys.exit(main())
