"""Gets a command into an image: `python -m lockstep.images.enter PASS COMMAND…`.

The command sees the image, the study's folders and nothing else of the host: not its packages, not
its environment, not the home folder. It becomes Apptainer itself (exec), so that signals and exit
status are the command's own. PASS is the JSON that `Pass.text` writes.
"""

import json
import os
import shutil
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lockstep import machine
from lockstep.errors import UserError
from lockstep.images import host
from lockstep.images.watch import end_with_parent

PYTHON = "/opt/lockstep/bin/python"
SCRATCH = "/tmp"  # inside; on the host it is the launcher's folder
FORWARDED = (  # what of the host's environment goes in, by name or by prefix
    "LOCKSTEP_",
    "SLURM_",
    "NCCL_",
    "GLOO_",
    "CUDA_VISIBLE_DEVICES",
    "OMP_",
    "GOMP_",
    "MKL_NUM_THREADS",
    "MALLOC_",
    "GLIBC_TUNABLES",
    "XLA_FLAGS",
    "TERM",
)
OUTSIDE = (  # and what of it Apptainer itself may know: no mounts, overlays or options
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "APPTAINER_TMPDIR",
    "APPTAINER_CACHEDIR",
    "APPTAINER_CONFIGDIR",
)
INSIDE = "LOCKSTEP_INSIDE"
HOSTS = "/etc/hosts"
FABRIC = "/dev/infiniband"  # through it NCCL reaches other nodes; --contain leaves it out
CONTROL = Path("/dev/nvidiactl")
DRIVER = Path("/sys/module/nvidia/version")


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What a command may use of the host.

    Attributes:
        image: the SIF.
        identity: the image's identity, for the command to know where it is.
        name: `base`, `torch` or `jax`.
        writable: folders mounted with write access, at the paths they have on the host.
        readable: folders and files mounted read-only.
        caches: folder for what programs keep between starts; below a writable one.
        minimum_driver: NVIDIA driver that the image's CUDA needs; None if it holds none.
    """

    image: str
    identity: str
    name: str
    writable: tuple[str, ...]
    readable: tuple[str, ...]
    caches: str
    minimum_driver: str | None = None

    def text(self) -> str:
        """Return the pass as one argument of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> "Pass":
        """Read what `text` wrote."""
        fields = json.loads(text)
        fields["writable"], fields["readable"] = map(
            tuple, (fields["writable"], fields["readable"])
        )
        return cls(**fields)


def command(leave: Pass, arguments: Sequence[str]) -> list[str]:
    """Return the command line that runs Python with `arguments` in an image, from anywhere."""
    return [sys.executable, "-m", "lockstep.images.enter", leave.text(), *arguments]


def gpus_here() -> bool:
    """Whether this node has an NVIDIA GPU that its driver runs and that this process may use."""
    return CONTROL.exists() and bool(machine.visible_gpus())


def check_driver(leave: Pass, version: Path = DRIVER) -> None:
    """Refuse an NVIDIA driver that is too old, with which the GPU would just seem to be absent.

    Raises:
        UserError: says which driver the image needs.
    """
    if leave.minimum_driver is None or not version.is_file():
        return
    found = version.read_text().strip()
    if host.numbers(found) < host.numbers(leave.minimum_driver):
        raise UserError(
            f"the NVIDIA driver of {os.uname().nodename} is {found}, but the CUDA of image "
            f"{leave.name} needs {leave.minimum_driver} or later: have it updated, set images.cuda "
            "to a generation that it runs, leave this node out, or hide its GPUs "
            "(CUDA_VISIBLE_DEVICES=)"
        )


def scratch_of(host: Mapping[str, str]) -> str | None:
    """Return the launcher's folder on this node."""
    return host.get("LOCKSTEP_SCRATCH") or host.get("LOCKSTEP_RENDEZVOUS")


def environment(leave: Pass, host: Mapping[str, str], *, gpu: bool) -> dict[str, str]:
    """Return the environment inside: what is forwarded, and where things are kept."""
    forwarded = {name: value for name, value in host.items() if name.startswith(FORWARDED)}
    caches = Path(leave.caches).absolute()
    inside = {
        **forwarded,
        INSIDE: leave.identity,
        "PYTHONPATH": str(package_folder()),
        "PYTHONSAFEPATH": "1",
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "XDG_CACHE_HOME": str(caches / "xdg"),
        "MPLCONFIGDIR": str(caches / "matplotlib"),
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor"),
        "TRITON_CACHE_DIR": str(caches / "triton"),
        "TRITON_HOME": str(caches / "triton"),
        "CUDA_CACHE_PATH": str(caches / "cuda"),
    }
    if forwarded.get("LOCKSTEP_RENDEZVOUS") == scratch_of(host):
        inside["LOCKSTEP_RENDEZVOUS"] = SCRATCH  # processes of several nodes meet elsewhere
    if leave.name == "jax" and not gpu:
        inside["JAX_PLATFORMS"] = "cpu"  # or it looks for the CUDA it has, and says what it misses
    return inside


def hosts(node: str, address: str, known: str) -> str:
    """Return `/etc/hosts` for inside: gloo joins processes by what this node's own name means.

    Args:
        node: this node's name.
        address: at which the other processes of a run reach it.
        known: the host's own file, of which other names are kept.
    """
    lines = [f"127.0.0.1 localhost\n{address} {node}"]
    for line in known.splitlines():
        where, *names = line.partition("#")[0].split() or [""]
        others = [name for name in names if name not in (node, "localhost")]
        if others:
            lines.append(" ".join([where, *others]))
    return "\n".join(lines) + "\n"


def _own_hosts(scratch: str) -> str:
    """Write that file into the launcher's folder; returns its path."""
    try:
        known = Path(HOSTS).read_text()
    except OSError:
        known = ""
    path = Path(scratch) / f"hosts-{os.getpid()}"
    reached_at = os.environ.get("LOCKSTEP_HOST", "127.0.0.1")
    address = str(socket.getaddrinfo(reached_at, None)[0][4][0])
    path.write_text(hosts(os.uname().nodename, address, known))
    return str(path)


def make_mount_points(leave: Pass, scratch: Path) -> None:
    """Make the mount points below `SCRATCH`, in the folder that the processes of a node share:
    Apptainer fails if another of them makes one at the same moment.
    """
    for path in (*leave.readable, *leave.writable, str(package_folder())):
        folder = Path(path).absolute()
        if folder.is_relative_to(SCRATCH) and folder.is_dir():
            (scratch / folder.relative_to(SCRATCH)).mkdir(parents=True, exist_ok=True)


def apptainer_command(
    leave: Pass,
    arguments: Sequence[str],
    *,
    scratch: str | None,
    gpu: bool,
    names: str | None = None,
) -> list[str]:
    """Return Apptainer's command line.

    Args:
        scratch: folder on the host that is `SCRATCH` inside.
        gpu: whether to bring in the driver.
        names: file on the host that is `HOSTS` inside.

    `--contain` leaves out home and the host's /tmp; /dev/shm is the host's, since the processes
    of a run meet there (NCCL, DataLoader workers) and each has a container of its own.
    """
    binds = [("/dev/shm", "/dev/shm", "rw")]
    if Path(FABRIC).exists():
        binds.append((FABRIC, FABRIC, "rw"))
    if scratch:
        binds.insert(0, (scratch, SCRATCH, "rw"))
    if names:
        binds.append((names, HOSTS, "ro"))
    # A folder comes before those it holds, or it would hide them.
    folders = {str(Path(path).absolute()): "ro" for path in leave.readable}
    folders |= {str(Path(path).absolute()): "rw" for path in leave.writable}
    folders.setdefault(str(package_folder()), "ro")
    binds += [(path, path, mode) for path, mode in sorted(folders.items())]
    return [
        _apptainer(),
        "--silent",
        "exec",
        "--contain",
        "--cleanenv",
        "--no-home",
        "--no-mount",
        "hostfs,bind-paths",
        *(["--nv"] if gpu else []),
        *(part for bind in binds for part in ("--mount", _mount(*bind))),
        "--pwd",
        str(Path.cwd()),
        leave.image,
        "/usr/bin/env",
        f"HOME={SCRATCH}",  # Apptainer lets nobody set it from outside
        PYTHON,
        *arguments,
    ]


def _mount(source: str, target: str, mode: str) -> str:
    mount = f"type=bind,source={_quoted(source)},destination={_quoted(target)}"
    return mount if mode == "rw" else f"{mount},ro"


def _quoted(path: str) -> str:
    """Quote a path for `--mount`, whose fields are those of a CSV line."""
    return '"' + path.replace('"', '""') + '"' if set(path) & set(',"') else path


def _apptainer() -> str:
    found = shutil.which("apptainer")
    if found is None:
        raise UserError(
            f"apptainer is not on this node ({os.uname().nodename}); load its module or have it "
            "installed, or set images.enabled to false (python -m lockstep doctor says more)"
        )
    return found


def package_folder() -> Path:
    """Return the folder that holds the package: `workflow/`."""
    return Path(__file__).resolve().parents[2]


def become(leave: Pass, arguments: Sequence[str]) -> None:
    """Replace this process by the command in the image.

    Raises:
        UserError: there is no Apptainer or no image here.
    """
    if not Path(leave.image).is_file():
        raise UserError(f"{leave.image}: no such image; snakemake … images makes it")
    gpu = gpus_here()
    if gpu:
        check_driver(leave)
    # The launcher's folder goes when the launcher does. Without one, nobody would remove a folder:
    # then /tmp is Apptainer's own, small and in memory.
    scratch = scratch_of(os.environ)
    for folder in leave.writable:
        Path(folder).mkdir(parents=True, exist_ok=True)
    inside = environment(leave, os.environ, gpu=gpu)
    outside = {name: os.environ[name] for name in OUTSIDE if name in os.environ}
    outside |= {f"APPTAINERENV_{name}": value for name, value in inside.items() if name != "HOME"}
    # Apptainer has room for two signals at a time, and Go's scheduler sends it some (SIGURG): one
    # for us that comes then would be lost.
    outside["GODEBUG"] = "asyncpreemptoff=1"
    if scratch:
        make_mount_points(leave, Path(scratch))
    names = _own_hosts(scratch) if scratch else None
    line = apptainer_command(leave, arguments, scratch=scratch, gpu=gpu, names=names)
    end_with_parent()
    os.execve(line[0], line, outside)


if __name__ == "__main__":
    try:
        become(Pass.read(sys.argv[1]), sys.argv[2:])
    except UserError as error:
        print(f"lockstep: error: {error}", file=sys.stderr)
        sys.exit(2)
