"""What a site does to a study while it runs: `make drill-site`.

Each fault of the table (`tests/cluster/site_faults.py`) is injected into a study of one run over
two nodes, started by the command that people type. The workflow must end by itself with the bits of
an undisturbed study, must never have two jobs for one target, and must leave nothing behind. How
long it takes until a line names the fault is measured. Results go to site.json beside the box.
"""

import json
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockstep import files
from lockstep.workloads import weights
from tests.cluster.box import USER
from tests.cluster.conftest import Cluster
from tests.cluster.site_faults import FAULTS, Fault
from tests.conftest import checkpoints

EPOCHS = 60
PATIENCE = 420.0  # seconds for a workflow to end after its fault is over
OTHER = 1001  # another person's user number


def config(variant: str) -> dict[str, Any]:
    framework, mode = {"torch": ("torch", "eager"), "jax": ("jax", "jit")}[variant]
    own = {"convolution": "im2col"} if framework == "jax" else {}
    recipe = {"dataset": "digits", "epochs": EPOCHS, "optimizer": {"learning_rate": 0.01}}
    return {
        "study": f"site-{variant}",
        "datasets": {"digits": {"source": "digits"}},
        "workloads": {"mnist_cnn": recipe},
        "variants": {variant: {"framework": framework, "mode": mode, **own}},
        "scales": ["2x1"],
        "window_steps": 6,
        "threads": 1,
        "checkpoints": {"seconds": 1, "margin": 20},
        "blocks": {"timeout": 20},
        "parity": {"steps": 5, "float32_steps": 5},
        "tracking": {"tensorboard": False},
    }


class Scene:
    """A study that runs while a fault is injected, for the fault to act on."""

    def __init__(self, cluster: Cluster, variant: str, options: tuple[str, ...]) -> None:
        self.cluster, self.box = cluster, cluster.box
        self.config = config(variant)
        self.study = self.config["study"]
        self.block = f"mnist_cnn/{variant}/2x1/seed-0"
        self.results = cluster.results(self.study)
        self.log = self.box.folder / f"{self.study}.log"
        self.options = options
        self.workflow: subprocess.Popen | None = None
        self.twins: set[str] = set()
        self.kept: dict[str, Any] = {}

    def start(self) -> None:
        """Start the workflow, or start it again."""
        command = self.cluster.command(self.config)
        line = self.cluster.line(command[0], "runs", *command[1:], *self.options)
        with open(self.log, "a") as stream:
            self.workflow = subprocess.Popen(
                line, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL
            )

    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def job(self) -> str:
        """Return the job that trains."""
        for note in self.results.glob("jobs/*.json"):
            known = files.read_json(note)
            if known["target"].startswith("train:") and known.get("job"):
                return str(known["job"])
        return ""

    def steps(self) -> int:
        found = checkpoints(self.results, self.block)
        return int(found[-1].parent.name.removeprefix("step-")) if found else 0

    def ranks(self) -> dict[int, int]:
        """Return the run's processes by rank, as this machine numbers them."""
        return {
            int(place["LOCKSTEP_RANK"]): pid
            for pid, place in processes(self.job())
            if "LOCKSTEP_RANK" in place
        }

    def wait(self, condition: Callable[[], Any], timeout: float = 180.0) -> bool:
        """Wait for something, looking for twins meanwhile; returns whether it came."""
        deadline = time.monotonic() + timeout
        looked = 0.0
        while not condition():
            if time.monotonic() > deadline:
                return False
            if time.monotonic() - looked > 3:
                self.look()
                looked = time.monotonic()
            time.sleep(0.2)
        return True

    def look(self) -> None:
        """Note the targets for which more than one job lives."""
        states = "--states=PENDING,RUNNING,CONFIGURING,SUSPENDED"
        asked = ("squeue", "--noheader", "--all", states, "--format=%k")
        try:
            said = self.box.slurm(*asked, timeout=20)
        except subprocess.TimeoutExpired:
            return
        lines = [line for line in said.splitlines() if line.startswith("rule_")]
        self.twins |= {line for line, count in Counter(lines).items() if count > 1}


def processes(job: str) -> list[tuple[int, dict[str, str]]]:
    """Return the processes that train in a job, with their environments."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"lockstep.training.worker" not in (path / "cmdline").read_bytes():
                continue
            text = (path / "environ").read_text(errors="replace")
        except OSError:
            continue
        place = dict(line.split("=", 1) for line in text.split("\0") if "=" in line)
        if place.get("SLURM_JOB_ID") == job:
            found.append((int(path.name), place))
    return found


@pytest.fixture(scope="module")
def prepared(cluster: Cluster) -> Cluster:
    """Both studies up to their proof of parity, kept aside; and the ends of undisturbed runs.

    They are taken from a box that has them from an earlier drill.
    """
    users = cluster.box.folder / "root" / "etc" / "passwd"
    if f":{OTHER}:" not in users.read_text():
        name = ["useradd", "--root", str(cluster.box.folder / "root"), "--uid", str(OTHER)]
        subprocess.run([*name, "--create-home", "another"], check=True)
    aside = kept(cluster)
    if (aside / "data").exists():  # which comes last
        copy(aside / "data", cluster.clone / "data")
        (cluster.clone / "results").mkdir()
        os.chown(cluster.clone / "results", USER, USER)
        return cluster
    for variant in ("torch", "jax"):
        scene = Scene(cluster, variant, ())
        weight = f"results/{scene.study}/weights/mnist_cnn/seed-0.safetensors"
        path = cluster.command(scene.config)[-1]
        local = ("--profile", "profiles/local", "--configfile", path)
        cluster.run("snakemake", "parity", weight, *local)
        copy(scene.results, aside / scene.study)
        scene.start()
        assert scene.workflow and scene.workflow.wait(timeout=PATIENCE) == 0, scene.said()
        copy(scene.results / "runs", aside / "runs")
    copy(cluster.clone / "data", aside / "data")
    return cluster


def kept(cluster: Cluster) -> Path:
    return cluster.box.folder / "prepared"


def copy(source: Path, target: Path) -> None:
    """Copy a folder, which its user can write, as it is."""
    if target.name != "runs":  # of both studies
        shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    subprocess.run(["chown", "-R", f"{USER}:{USER}", target], check=True)


def digest(run: Path) -> str:
    return weights.digest(weights.load(run / "final.safetensors"))


def left_behind(scene: Scene) -> list[str]:
    """Return what a finished study should have taken away."""
    found = [str(path) for path in scene.results.rglob("*.tmp")]
    found += [str(path) for path in (scene.results / "rendezvous").glob("*")]
    found += [str(path) for path in (scene.results / "checkpoints").glob("*")]
    found += [f"process {pid}" for pid, _ in processes(scene.job())]
    queue = scene.box.slurm("squeue", "--noheader", "--all", "--format=%i %T")
    return found + [f"job {line}" for line in queue.splitlines() if re.match(r"\d+ ", line)]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_fault(prepared: Cluster, fault: Fault) -> None:
    scene = Scene(prepared, fault.variant, fault.options)
    copy(kept(prepared) / scene.study, scene.results)
    scene.log.write_text("")
    row: dict[str, Any] = {"fault": fault.name}
    try:
        if fault.before:
            fault.inject(scene)
        scene.start()
        begun = time.monotonic()
        if not fault.before:
            assert scene.wait(lambda: scene.steps() > 0), scene.said()[-3000:]
            scene.look()
            fault.inject(scene)
            begun = time.monotonic()
        if fault.told:
            told = re.compile(fault.told)
            assert scene.wait(lambda: told.search(scene.said())), scene.said()[-3000:]
            row["seconds"] = round(time.monotonic() - begun, 1)
        scene.wait(lambda: time.monotonic() - begun > fault.lasts, fault.lasts + 10)
    except BaseException:
        if scene.workflow:
            prepared.kill(scene.workflow)
        raise
    finally:
        fault.undo(scene)
    try:
        workflow = scene.workflow
        assert workflow is not None
        row["ended"] = scene.wait(lambda: workflow.poll() is not None, PATIENCE)
        row["status"] = workflow.returncode
        if fault.status == 0:
            undisturbed = kept(prepared) / "runs" / scene.block
            run = scene.results / "runs" / scene.block
            row["equal"] = row["status"] == 0 and digest(run) == digest(undisturbed)
        row["twins"] = sorted(scene.twins)
        row["left"] = left_behind(scene) if fault.status == 0 else []
    finally:
        if scene.workflow and scene.workflow.poll() is None:
            prepared.kill(scene.workflow)
        scene.box.slurm("scancel", "--user=lockstep")
        note(scene.box.folder / "site.json", row)
    assert row["ended"] and row["status"] == fault.status, scene.said()[-4000:]
    assert row.get("equal", True) and not row["twins"] and not row["left"], row


def note(path: Path, row: dict[str, Any]) -> None:
    """Keep a fault's row, and print it."""
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(known | {row["fault"]: row}, indent=2) + "\n")
    print(json.dumps(row))
