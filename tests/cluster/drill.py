"""The fault drill: kills at every phase of a run, on one node and on two, in both frameworks.

`make drill`; LOCKSTEP_DRILL is the number of kills of each run (default 14: 56 in all). Every run
must end with the bits of an undisturbed one and must have lost no more than one checkpoint's
interval at a kill, and nothing at a signal that it could answer. What was hit is printed as a
table, and written to drill.json beside the box.
"""

import collections
import itertools
import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.conftest import Cluster
from tests.cluster.phases import Phases
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
EPOCHS = 150  # so many that no run ends before its last kill
SCALES = ("1x1", "2x1")
PATIENCE = 1200.0  # seconds for a phase to come, and for a run to end
FATES = ("SIGKILL", "SIGTERM", "SIGUSR1", "batch killed", "controller restarted", "node down")


@pytest.fixture(scope="module")
def prepared(cluster: Cluster) -> Cluster:
    """Two studies with the same runs."""
    recipe = CONFIG["workloads"]["mnist_cnn"] | {"epochs": EPOCHS}
    for study in ("undisturbed", "disturbed"):
        changes = {"study": study, "scales": list(SCALES), "workloads": {"mnist_cnn": recipe}}
        cluster.prepare(CONFIG | changes)
    return cluster


def befall(cluster: Cluster, job: str, fate: str, release: Callable[[], None]) -> None:
    """Do to a job what clusters do, until it has ended by that.

    Args:
        release: lets processes that stand still go on; called after the first blow.
    """
    box = cluster.box
    if fate == "node down":
        box.stop("node1")
        release()
        wait_for(lambda: state(cluster, job) != "RUNNING", timeout=120)
        box.slurm("scancel", job)
        box.start_node("node1")
        wait_for_end(cluster, job)
        box.wait_for_nodes()
        return
    if fate == "controller restarted":
        box.restart_controller()
        wait_for(lambda: state(cluster, job), timeout=60)
    deadline = time.monotonic() + PATIENCE
    # Before its first step a job has nothing that a signal to its steps could reach.
    while state(cluster, job) in ("PENDING", "CONFIGURING", "RUNNING"):
        assert time.monotonic() < deadline, f"job {job} lives on after {fate}"
        _strike(cluster, job, fate)
        release()
        time.sleep(1)
    wait_for_end(cluster, job)


def _strike(cluster: Cluster, job: str, fate: str) -> None:
    box = cluster.box
    if fate == "SIGKILL":
        steps = box.slurm("squeue", "--steps", "--noheader", "--format=%i", "--jobs", job)
        for step in re.findall(rf"^{job}\.\d+", steps, re.MULTILINE):
            box.slurm("scancel", "--signal=KILL", step)
    elif fate == "SIGUSR1":
        box.slurm("scancel", "--signal=USR1", job)
    elif fate == "batch killed":
        box.slurm("scancel", "--full", "--signal=KILL", job)
    else:  # SIGTERM, and what lives on after a restart of the controller
        box.slurm("scancel", job)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("variant", ["torch-eager", "jax-jit"])
def test_drill(prepared: Cluster, variant: str, scale: str) -> None:
    cluster, nodes = prepared, scale[0]
    cluster.run(
        *("salloc", "--quiet", f"--nodes={nodes}", f"--ntasks={nodes}", "--cpus-per-task=2"),
        *("--exclusive", *training(cluster, "undisturbed", variant, scale)),
    )
    chance = random.Random(f"{variant} {scale}")
    fates = itertools.cycle(chance.sample(FATES, len(FATES)))
    hits: list[dict[str, object]] = []
    names: list[str] = []
    while len(hits) < KILLS:
        phases = _attempt(cluster, variant, scale)
        names = names or chance.sample(sorted(phases.conditions), len(phases.conditions))
        phase, fate = names.pop(), next(fates)
        assert phases.reached(phase, lambda p=phases: ended(cluster, p.job), PATIENCE), (
            f"no kill landed at {phase}: {phases.log()[-2000:]}\n{phases.job_log()[-2000:]}"
        )
        saved = phases.saved()
        befall(cluster, phases.job, fate, lambda p=phases: p.signal(signal.SIGCONT))
        assert state(cluster, phases.job) != "COMPLETED", (phase, fate)
        hits.append(phases.check(phase, fate, saved))
        print(f"{variant} {scale} kill {len(hits)}: {fate} at {phase}, {saved} steps saved")
    phases = _attempt(cluster, variant, scale)
    wait_for(lambda: ended(cluster, phases.job), timeout=PATIENCE)
    assert state(cluster, phases.job) == "COMPLETED", phases.job_log()[-2000:]
    assert_same(cluster, variant, scale)
    _note(cluster.box.folder / "drill.json", f"{variant} {scale}", hits)


def _attempt(cluster: Cluster, variant: str, scale: str) -> Phases:
    """Submit the disturbed run once more."""
    before = Phases(cluster, variant, scale, "", INTERVAL)
    before.job = submit(cluster, "disturbed", variant, scale)
    return before


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
    (stopped,) = set(re.findall(r"stopped at step (\d+)", log))
    assert steps_saved(cluster, "long", variant, "1x1") == int(stopped) > 0
    print(f"{variant} walltime: stopped by itself at step {stopped}, all of them saved")


def _note(path: Path, name: str, hits: list[dict[str, object]]) -> None:
    known = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(known | {name: hits}, indent=2) + "\n")
    for key in ("phase", "fate"):
        counted = collections.Counter(str(hit[key]) for hit in hits)
        print(f"{name}: " + ", ".join(f"{what} {count}" for what, count in counted.items()))
