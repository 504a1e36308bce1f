"""The fault drill: kills at every phase of a run, on one node and on two, in both frameworks.

`make drill`; LOCKSTEP_DRILL is the number of kills of each run (default 14: 56 in all). Every run
must end with the bits of an undisturbed one and must have lost no more than one checkpoint's
interval at a kill. What was hit is printed as a table, and written to drill.json beside the box.
"""

import collections
import itertools
import json
import os
import random
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.test_interruption import (
    CONFIG,
    assert_same,
    ended,
    state,
    steps_saved,
    submit,
    training,
    wait_for_end,
)
from tests.conftest import wait_for

KILLS = int(os.environ.get("LOCKSTEP_DRILL", "14"))
INTERVAL = 5  # steps between two checkpoints, as CONFIG has it
EPOCHS = 30
FATES = ("SIGKILL", "SIGTERM", "SIGUSR1", "batch killed", "controller restarted", "node down")


class Phases:
    """The phases of an attempt, told from the files that it makes."""

    def __init__(self, cluster: Cluster, variant: str, scale: str, job: str) -> None:
        self.cluster, self.variant, self.scale, self.job = cluster, variant, scale, job
        self.study = cluster.results("disturbed")
        self.before = self.saved()
        self.submitted = time.time()

    def saved(self) -> int:
        return steps_saved(self.cluster, "disturbed", self.variant, self.scale)

    def met(self, pattern: str) -> bool:
        return bool(self.files(pattern))

    def files(self, pattern: str) -> list[Path]:
        """Return what this attempt has put down; one that was killed leaves its own behind."""
        found = self.study.glob(f"rendezvous/.start-*/{pattern}")
        return [path for path in found if path.stat().st_mtime >= self.submitted]

    def log(self) -> str:
        path = self.cluster.clone / f"job-{self.job}.log"
        return path.read_text() if path.is_file() else ""

    def writing(self) -> bool:
        return any(self.study.glob(f"checkpoints/**/{self.scale}/seed-0/*/.step-*"))

    @property
    def conditions(self) -> dict[str, Callable[[], bool]]:
        """Return what tells that a phase has begun."""
        return {
            "job starts": lambda: state(self.cluster, self.job) == "RUNNING",
            "roll call": lambda: self.met("start.json"),
            "nodes answer": lambda: self.met("node-*.json"),
            "processes import": lambda: self.met("process-*.json"),
            "framework starts": lambda: (
                self.met("process-*.json") and self.aged("process-*.json", 1.5)
            ),
            "state is loaded": lambda: "resumes at" in self.log() or self.saved() > self.before,
            "first window": lambda: self.saved() > self.before,
            "checkpoint is written": self.writing,
            "training": lambda: self.saved() >= self.before + 2 * INTERVAL,
            "last window of an epoch": lambda: (
                self.saved() > self.before and self.saved() % 23 == 20
            ),
            "evaluation": lambda: bool(re.search(r"epoch \d+", self.log())),
        }

    def aged(self, pattern: str, seconds: float) -> bool:
        ages = [time.time() - path.stat().st_mtime for path in self.files(pattern)]
        return bool(ages) and min(ages) > seconds


def befall(cluster: Cluster, job: str, fate: str) -> None:
    """Do to a job what clusters do."""
    box = cluster.box
    if fate == "SIGKILL":
        steps = box.slurm("squeue", "--steps", "--noheader", "--format=%i", "--jobs", job)
        for step in re.findall(rf"^{job}\.\d+", steps, re.MULTILINE):
            box.slurm("scancel", "--signal=KILL", step)
    elif fate == "SIGTERM":
        box.slurm("scancel", job)
    elif fate == "SIGUSR1":
        box.slurm("scancel", "--signal=USR1", job)
    elif fate == "batch killed":
        box.slurm("scancel", "--full", "--signal=KILL", job)
    elif fate == "controller restarted":
        box.restart_controller()
        wait_for(lambda: state(cluster, job), timeout=60)
        box.slurm("scancel", job)  # the job lives on; only now it is ended
    elif fate == "node down":
        box.stop("node1")
        wait_for(lambda: state(cluster, job) != "RUNNING", timeout=120)
        box.slurm("scancel", job)
        box.start_node("node1")
        wait_for_end(cluster, job)
        box.wait_for_nodes()


@pytest.mark.parametrize("scale", ["1x1", "2x1"])
@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_drill(cluster: Cluster, variant: str, scale: str) -> None:
    workload = CONFIG["workloads"]["mnist_cnn"] | {"epochs": EPOCHS}
    for study in ("undisturbed", "disturbed"):
        cluster.prepare(
            CONFIG | {"study": study, "scales": [scale], "workloads": {"mnist_cnn": workload}}
        )
    nodes = scale[0]
    cluster.run(
        *("salloc", "--quiet", f"--nodes={nodes}", f"--ntasks={nodes}", "--cpus-per-task=2"),
        *("--exclusive", *training(cluster, "undisturbed", variant, scale)),
    )
    chance = random.Random(f"{variant} {scale}")
    fates = itertools.cycle(chance.sample(FATES, len(FATES)))
    hits: list[dict[str, object]] = []
    names: list[str] = []
    while len(hits) < KILLS:
        job = submit(cluster, "disturbed", variant, scale)
        phases = Phases(cluster, variant, scale, job)
        names = names or chance.sample(sorted(phases.conditions), len(phases.conditions))
        phase, fate = names.pop(), next(fates)
        condition = phases.conditions[phase]
        assert _reached(condition, lambda j=job: ended(cluster, j)), (
            f"no kill landed at {phase}: {phases.log()[-2000:]}"
        )
        time.sleep(chance.uniform(0, 0.05))
        reached = phases.saved()
        befall(cluster, job, fate)
        wait_for_end(cluster, job)
        # What a run had saved before the kill is still there.
        assert phases.saved() >= reached, (phase, fate)
        hits.append({"phase": phase, "fate": fate, "saved": reached})
        print(f"{variant} {scale} kill {len(hits)}: {fate} at {phase}, {reached} steps saved")
    job = submit(cluster, "disturbed", variant, scale)
    wait_for_end(cluster, job)
    assert state(cluster, job) == "COMPLETED", phases.log()[-2000:]
    assert_same(cluster, variant, scale)
    _note(cluster.box.folder / "drill.json", f"{variant} {scale}", hits)


@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_walltime(cluster: Cluster, variant: str) -> None:
    """A run that is longer than its job stops by itself before SLURM ends the job."""
    workload = CONFIG["workloads"]["mnist_cnn"] | {"epochs": 1000}
    config = CONFIG | {"study": "long", "workloads": {"mnist_cnn": workload}}
    cluster.prepare(config | {"scales": ["1x1"], "checkpoints": {"seconds": 1000}})
    job = submit(cluster, "long", variant, "1x1", "--time=1")
    wait_for_end(cluster, job)
    assert state(cluster, job) == "FAILED"  # by its own exit status: not TIMEOUT
    log = (cluster.clone / f"job-{job}.log").read_text()
    (stopped,) = re.findall(r"stopped at step (\d+)", log)
    assert steps_saved(cluster, "long", variant, "1x1") == int(stopped) > 0
    print(f"{variant} walltime: stopped by itself at step {stopped}, all of them saved")


def _reached(condition: Callable[[], bool], over: Callable[[], bool]) -> bool:
    """Wait for a moment that may be short; False if the job ended before it came."""
    asked = time.monotonic()
    while not condition():
        if time.monotonic() - asked > 3:
            if over():
                return False
            asked = time.monotonic()
        time.sleep(0.002)
    return True


def _note(path: Path, name: str, hits: list[dict[str, object]]) -> None:
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(known | {name: hits}, indent=2) + "\n")
    for key in ("phase", "fate"):
        counted = collections.Counter(str(hit[key]) for hit in hits)
        print(f"{name}: " + ", ".join(f"{what} {count}" for what, count in counted.items()))
