"""Fixtures for tests of images: a machine with Apptainer, and images built on it.

On a machine with Apptainer and an ordinary user, tests run there. As root, they run in a machine in
a folder (`box` in tests/conftest.py); LOCKSTEP_BOX names one in which it is kept for the next time.
Where neither is possible they are skipped; with LOCKSTEP_REQUIRE=containers that is a failure.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import lacks

REPOSITORY = Path(__file__).resolve().parents[2]
ROOT = REPOSITORY / "tests" / "cluster" / "root.sh"
sys.path.insert(0, str(REPOSITORY / "workflow"))

USER = 1000  # of the machine in a folder
MOVED_ON = "the Debian mirror has moved on"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where Apptainer runs as an ordinary user.

    Attributes:
        inside: what precedes a command to run it there.
        folder: a folder that has the same path there and here.
        venv: an environment there that has Snakemake.
    """

    inside: tuple[str, ...]
    folder: Path
    venv: Path

    @property
    def python(self) -> str:
        """The environment's interpreter."""
        return str(self.venv / "bin" / "python")

    @property
    def repository(self) -> Path:
        """A copy of this repository, as its user would have cloned it."""
        return self.folder / "clone"

    def line(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs a command there, in the clone."""
        enter = 'cd "$0" && exec env PYTHONPATH="$0/workflow" TMPDIR="$1" "${@:2}"'
        clone, scratch = str(self.repository), str(self.folder / "tmp")
        return [*self.inside, "bash", "-c", enter, clone, scratch, *command]

    def run(self, *command: str, status: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run a command there; fails the test if its exit status is not `status`."""
        answer = subprocess.run(
            self.line(command), capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if status is not None and answer.returncode != status:
            pytest.fail(f"{command}: status {answer.returncode}\n{answer.stdout}\n{answer.stderr}")
        return answer

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a command there."""
        return subprocess.Popen(
            self.line(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def make_folder(self, name: str) -> Path:
        """Return a new folder there."""
        path = self.folder / name
        path.mkdir()
        self.give(path)
        return path

    def give(self, *paths: Path) -> None:
        """Make files that this test wrote belong to the user there."""
        if os.getuid() == 0:
            for path in paths:
                for each in (path, *path.rglob("*")):
                    os.chown(each, USER, USER, follow_symlinks=False)

    def ensure(self, name: str, **options: Any) -> list[str]:
        """Return a command that builds an image (tests/images/ensure.py)."""
        script = self.repository / "tests" / "images" / "ensure.py"
        return [self.python, str(script), name, json.dumps(options, default=str)]


@pytest.fixture(scope="session")
def machine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A machine with Apptainer, a clone of this repository, and an ordinary user."""
    if os.getuid() != 0:
        if shutil.which("apptainer") is None:
            lacks(
                "containers", "there is no Apptainer here, and to make a machine with it takes root"
            )
        folder = tmp_path_factory.mktemp("machine")
        _clone(folder)
        yield Machine(inside=(), folder=folder, venv=Path(sys.prefix))
        return
    if shutil.which("mmdebstrap") is None:
        lacks("containers", "there is neither an ordinary user with Apptainer nor mmdebstrap")
    box = request.getfixturevalue("box")
    # Beside the root, at a path that every user may come through; images are kept between sessions.
    folder = box.absolute() / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (box / "cache").mkdir(exist_ok=True)
    inside = (
        str(ROOT),
        "run",
        str(box),
        "--bind",
        str(folder),
        "--bind",
        f"{box.absolute()}/cache",
    )
    made = Machine(inside=(*inside, "--"), folder=folder, venv=box.absolute() / "cache" / "venv")
    _clone(folder)
    made.give(folder)
    os.chown(box / "cache", USER, USER)
    made.run("make", f"VENV={made.venv}", "setup")
    yield made
    shutil.rmtree(folder, ignore_errors=True)
    if not os.environ.get("LOCKSTEP_BOX"):
        shutil.rmtree(box / "cache")


def _clone(folder: Path) -> None:
    """Copy what git tracks or would track."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    (folder / "tmp").mkdir()
    for name in names.stdout.splitlines():
        target = folder / "clone" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (REPOSITORY / name).is_file():
            shutil.copy(REPOSITORY / name, target)


@pytest.fixture(scope="session")
def cache(machine: Machine) -> Path:
    """The cache of images of this session; kept with the machine."""
    if not machine.inside:
        return machine.make_folder("cache")
    return machine.venv.parent / "images"


@pytest.fixture(scope="session")
def base(machine: Machine, cache: Path) -> Path:
    """The base image's folder in the cache.

    After a point release of Debian the mirror lacks what the lock names. That is no fault of the
    code under test: it goes on with a new lock, and says so.
    """
    command = machine.ensure("base", cache=cache)
    answer = machine.run(*command, status=None)
    if MOVED_ON in answer.stderr:
        warnings.warn(f"{MOVED_ON}: tested with a new lock, renew the committed one", stacklevel=1)
        machine.run("containers/lock.sh", "debian")
        answer = machine.run(*command)
    assert answer.returncode == 0, answer.stderr
    return Path(answer.stdout.strip())


FEW = ("h5py", "numpy")
"""Packages of a small image, by which it is known to work."""

WORKS = """\
import importlib.metadata, json, platform, sysconfig
import h5py
found = importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])
packages = {entry.name: entry.version for entry in found}
print(json.dumps({"python": platform.python_version(), "packages": packages, "debian": {}}))
"""

AFRESH = "rm -r /opt/lockstep; python3 -m venv --without-pip /opt/lockstep"
"""The base image's first steps, after which come `wheels; forget_bytecode; finish`."""


@pytest.fixture(scope="session")
def small(machine: Machine, base: Path, cache: Path) -> Path:
    """An image as the base image, but with few packages: to unpack that one takes half a minute."""
    made = Tiny(machine=machine, start=base, folder=machine.make_folder("small"))
    command = made.ensure(f"{AFRESH}; wheels; forget_bytecode; finish", cache=cache)
    return Path(machine.run(*command).stdout.strip())


@pytest.fixture
def tiny(machine: Machine, small: Path, tmp_path: Path) -> "Tiny":
    """A recipe that is built in seconds: a small image, with other last steps."""
    return Tiny(machine=machine, start=small, folder=machine.make_folder(tmp_path.name))


@dataclass(frozen=True, kw_only=True)
class Tiny:
    """A base image made from a finished one."""

    machine: Machine
    start: Path
    folder: Path

    @property
    def lock(self) -> str:
        """The lock of its Python packages."""
        text = (self.machine.repository / "containers" / "locks" / "base.txt").read_text()
        entries = re.split(r"(?m)^(?=[a-z])", text)
        return "".join(entry for entry in entries if entry.startswith(FEW))

    def ensure(
        self, steps: str = "true", lock: str | None = None, debian: str | None = None, **more: Any
    ) -> list[str]:
        """Return a command that builds it, after shell commands of ours.

        Args:
            steps: shell commands, with the functions of `install.sh`.
            lock: instead of the lock of Python packages.
            debian: instead of the lock of Debian packages.
            more: options of `ensure.py`.
        """
        containers = self.folder / "containers"
        shutil.copytree(self.machine.repository / "containers", containers)
        definition = f"""\
            Bootstrap: localimage
            From: {self.start}/image.sif

            %post
                : instead of {{{{ bootstrap }}}} and {{{{ from }}}}, which must be used
                . /mnt/install.sh
                {steps}
            """
        (containers / "base.def").write_text(textwrap.dedent(definition))
        (containers / "smoke" / "base.py").write_text(WORKS)
        (containers / "locks" / "base.txt").write_text(lock or self.lock)
        if debian is not None:
            (containers / "locks" / "debian-base.txt").write_text(debian)
        (self.folder / "build").mkdir()
        self.machine.give(self.folder)
        options = {
            "cache": self.folder / "cache",
            "build_folder": self.folder / "build",
            "containers": containers,
            "start": f"docker:nothing@sha256:{'0' * 64}",  # so that no Debian root is made
        }
        return self.machine.ensure("base", **options | more)

    @property
    def images(self) -> list[Path]:
        """What is in the cache."""
        return sorted(self.folder.glob("cache/base-*"))

    @property
    def leftovers(self) -> list[Path]:
        """What builds left in the build folder."""
        return sorted(self.folder.glob("build/*"))
