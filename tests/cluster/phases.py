"""The phases of an attempt to train a run, told from the files that it makes."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from lockstep import files
from lockstep.errors import UserError
from tests.cluster.conftest import Cluster
from tests.cluster.test_interruption import block, state, steps_saved

STEPS_PER_EPOCH = 23  # the last window of an epoch has three of them
WORKER = b"lockstep.training.worker"
SHORT = {  # phases that are over before a command has reached the controller
    *("state is loaded", "first window", "checkpoint is written", "training"),
    *("last window of an epoch", "evaluation"),
}


class Phases:
    """One attempt: a job that trains a block of the study `disturbed`."""

    def __init__(self, cluster: Cluster, variant: str, scale: str, job: str, interval: int) -> None:
        self.cluster, self.variant, self.scale, self.job = cluster, variant, scale, job
        self.interval = interval
        self.study = cluster.results("disturbed")
        self.folder = self.study / "checkpoints" / block(variant, scale)
        self.run_log = self.study / "runs" / block(variant, scale) / "log.txt"
        self.before, self.said_before = self.saved(), len(self._said())
        self.submitted = time.time()

    def saved(self) -> int:
        """Return how many steps the newest checkpoint holds."""
        return steps_saved(self.cluster, "disturbed", self.variant, self.scale)

    def log(self) -> str:
        """Return what this attempt has written to the run's log."""
        said = self._said()
        # It is empty again where the attempt before has saved nothing.
        return said[self.said_before if len(said) >= self.said_before else 0 :]

    def job_log(self) -> str:
        """Return what the job said, for people."""
        path = self.cluster.clone / f"job-{self.job}.log"
        return path.read_text() if path.is_file() else ""

    def _said(self) -> str:
        try:
            return self.run_log.read_text()
        except FileNotFoundError:
            return ""

    def files(self, pattern: str) -> list[float]:
        """Return how old what this attempt has put down is; others leave theirs behind."""
        now = time.time()
        changed = _changed(self.study.glob(f"rendezvous/.start-*/{pattern}"))
        return [now - at for at in changed if at >= self.submitted]

    def writing(self) -> bool:
        """Whether a checkpoint is being written."""
        return any(at >= self.submitted for at in _changed(self.folder.glob("*/.step-*")))

    def evaluating(self) -> bool:
        """Whether an epoch's last window is over and its line is not there yet."""
        saved = self.saved()
        last = STEPS_PER_EPOCH - STEPS_PER_EPOCH % self.interval
        if saved <= self.before or saved % STEPS_PER_EPOCH != last:
            return False
        try:
            (newest,) = self.folder.glob(f"*/step-{saved:09d}/progress.json")
            windows, written = files.read_json(newest)["windows"], newest.stat().st_mtime
        except (OSError, ValueError, UserError):  # it has gone, or there is a newer one
            return False
        short = [row["seconds"] for row in windows if row["steps"] < self.interval]
        told = f"epoch {saved // STEPS_PER_EPOCH + 1} " in self.log()
        return not told and time.time() - written > min(short, default=0.05)

    @property
    def conditions(self) -> dict[str, Callable[[], bool]]:
        """Return what tells that a phase has begun."""
        return {
            "job starts": lambda: state(self.cluster, self.job) == "RUNNING",
            "roll call": lambda: bool(self.files("start.json")),
            "nodes answer": lambda: bool(self.files("node-*.json")),
            "processes import": lambda: bool(self.files("process-*.json")),
            "framework starts": lambda: min(self.files("process-*.json"), default=0) > 1.5,
            "state is loaded": lambda: "resumes at" in self.log() or self.saved() > self.before,
            "first window": lambda: self.saved() > self.before,
            "checkpoint is written": self.writing,
            "training": lambda: self.saved() >= self.before + 2 * self.interval,
            "last window of an epoch": lambda: (
                self.saved() > self.before and self.saved() % STEPS_PER_EPOCH == 20
            ),
            "evaluation": self.evaluating,
        }

    def reached(self, phase: str, over: Callable[[], bool], patience: float) -> bool:
        """Wait for a phase, and have the run's processes stand still in one that is short.

        Returns:
            False if the job ended, or `patience` seconds went by, before it came.
        """
        condition = self.conditions[phase]
        deadline = time.monotonic() + patience
        asked = time.monotonic()
        while time.monotonic() < deadline:
            if condition():
                if phase not in SHORT:
                    return True
                self.signal(signal.SIGSTOP)
                if condition():
                    return True
                self.signal(signal.SIGCONT)
            elif time.monotonic() - asked > 3:
                if over():
                    return False
                asked = time.monotonic()
            time.sleep(0.002)
        return False

    def signal(self, number: signal.Signals) -> None:
        """Signal the run's processes, past SLURM."""
        ours = {f"SLURM_JOB_ID={self.job}", f"SLURM_SUBMIT_DIR={self.cluster.clone}"}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if WORKER not in (path / "cmdline").read_bytes():
                    continue
                if ours <= set((path / "environ").read_text(errors="replace").split("\0")):
                    os.kill(int(path.name), number)
            except OSError:  # it has ended
                continue

    def check(self, phase: str, fate: str, reached: int) -> dict[str, object]:
        """Assert what this attempt owes, after its end: its work, but for one interval.

        Args:
            reached: the steps that were saved when it was struck.
        """
        saved, said = self.saved(), self.log()
        about = f"{fate} at {phase}: {said[-2000:]}\n{self.job_log()[-2000:]}"
        assert saved >= reached, about
        begun = [int(step) for step in re.findall(r"resumes at step (\d+)", said)]
        stopped = [int(step) for step in re.findall(r"stopped at step (\d+)", said)]
        told = [int(step) for step in re.findall(r"epoch \d+  step (\d+)", said)]
        assert begun in ([], [self.before]), about
        assert stopped in ([], [saved]), about
        assert max(told, default=0) <= saved + self.interval, about
        if fate in ("SIGTERM", "SIGUSR1") and phase in SHORT:
            assert stopped, f"it did not save: {about}"
        return {"phase": phase, "fate": fate, "struck_at": reached, "saved": saved}


def _changed(paths: Iterable[Path]) -> list[float]:
    """Return when files were last changed; what vanishes meanwhile is not there."""
    times = []
    try:
        for path in paths:
            times.append(path.stat().st_mtime)
    except FileNotFoundError:
        return []
    return times
