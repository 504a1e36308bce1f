"""A SLURM cluster in a box (tests/cluster/box.py), with a clone of this repository on it.

LOCKSTEP_BOX names a folder in which its root file system is kept for the next time. Skipped where
it cannot be made; with LOCKSTEP_REQUIRE=slurm that is a failure.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.box import USER, Box
from tests.conftest import lacks

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE = 2400  # seconds for a whole study, with its images


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The cluster, and a fresh clone on its login node."""

    box: Box
    clone: Path

    def line(self, *command: str) -> list[str]:
        """Return the command line that runs a command on the login node, in the clone."""
        package = f"PYTHONPATH={self.clone}/workflow"
        images = f"LOCKSTEP_IMAGE_CACHE={self.box.images}"
        # The nodes share this machine's cores: threads that spin while they wait would hold them.
        waiting = "OMP_WAIT_POLICY=passive"
        return self.box.login("env", package, images, waiting, *command, folder=self.clone)

    def run(self, *command: str, status: int | None = 0) -> str:
        """Run a command on the login node; returns what it said."""
        done = subprocess.run(
            self.line(*command),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE,
        )
        said = done.stdout + done.stderr
        if status is not None and done.returncode != status:
            pytest.fail(f"{' '.join(command)}: status {done.returncode}\n{said}")
        return said

    def snakemake(self, config: dict[str, Any], *more: str, status: int | None = 0) -> str:
        """Run a study by the command of which the README speaks."""
        return self.run(*self.command(config), *more, status=status)

    def command(self, config: dict[str, Any]) -> list[str]:
        """Return that command, after its config was written."""
        path = self.clone / f"{config['study']}.yaml"
        # The machines of the box share one, and that with other tests: nothing is timed there.
        untimed = {"watch": False, "cold_start": False}
        config = {**config, "blocks": {**untimed, **config.get("blocks", {})}}
        path.write_text(yaml.safe_dump(config))
        os.chown(path, USER, USER)
        return ["snakemake", "--profile", "slurm", "--configfile", path.name]

    def prepare(self, config: dict[str, Any]) -> Path:
        """Make what runs of a study need, on the login node; returns its results."""
        path, study = self.command(config)[-1], config["study"]
        states = f"results/{study}/weights/mnist_cnn/seed-0.safetensors"
        local = ("snakemake", "--profile", "profiles/local", "--configfile", path)
        self.run(*local, "--quiet", "all", "--", "datasets", states)
        return self.results(study)

    def start(self, *command: str, log: Path) -> subprocess.Popen:
        """Start a command on the login node."""
        with open(log, "w") as stream:
            return subprocess.Popen(
                self.line(*command), stdout=stream, stderr=stream, stdin=subprocess.DEVNULL
            )

    def kill(self, process: subprocess.Popen) -> None:
        """End a command on the login node, and all that it started there, by SIGKILL."""
        process.send_signal(signal.SIGKILL)
        process.wait()

    def job_of(self, block: str, study: str) -> str | None:
        """Return the job that trains a block, once it runs."""
        log = self.clone / "results" / study / "runs" / block / "run.json"
        if not log.is_file():
            return None
        return json.loads(log.read_text())["host"]["job"]["id"]

    def jobs(self) -> dict[str, str]:
        """Return the state of all jobs that SLURM remembers."""
        said = self.box.slurm("squeue", "--noheader", "--states=all", "--format=%i %T")
        return dict(re.findall(r"^(\d+) (\w+)", said, re.MULTILINE))

    def results(self, study: str) -> Path:
        """Return a study's results."""
        return self.clone / "results" / study


@pytest.fixture(scope="session")
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """The cluster, up."""
    if os.getuid() != 0:
        lacks("slurm", "a cluster in a box takes root")
    if Path(sys.base_prefix) == Path("/usr"):
        lacks(
            "slurm",
            "this Python is the system's own, which cannot be mounted into the cluster's hosts",
        )
    for program in ("mmdebstrap", "ip", "unshare"):
        if shutil.which(program) is None:
            lacks("slurm", f"{program} is missing")
    kept = os.environ.get("LOCKSTEP_BOX")
    box = Box(folder=Path(kept or tmp_path_factory.mktemp("slurm") / "box").absolute())
    shutil.rmtree(box.shared, ignore_errors=True)
    if not (box.folder / "root").exists():
        box.folder.mkdir(parents=True, exist_ok=True)
        made = request.getfixturevalue("box") / "root"
        subprocess.run(["cp", "--archive", made, box.folder / "root"], check=True)
    try:
        box.up()
        yield Cluster(box=box, clone=box.clone(REPOSITORY))
    finally:
        box.down()
        shutil.rmtree(box.shared, ignore_errors=True)
        if not kept:
            shutil.rmtree(box.images.parent, ignore_errors=True)
            subprocess.run([REPOSITORY / "tests/cluster/root.sh", "remove", box.folder], check=True)
    assert not [path for path in Path("/run/netns").iterdir() if path.name.startswith(box.tag)]
