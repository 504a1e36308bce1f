"""An engine with its feed, put together as a run's worker does it, and asked for parts of a run."""

import itertools
import os
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.gpu import compiled, resident
from lockstep import engines, workloads
from lockstep.datasets.reader import Reader, read_manifest
from lockstep.engines.contract import Job, Window
from lockstep.training import loop
from lockstep.training.begin import prepared
from lockstep.training.feed import Feed, SharedFeed, check, evaluation_batches
from lockstep.training.watch import Watch
from lockstep.workloads import recipe as recipes
from lockstep.workloads import weights
from lockstep.workloads.contract import Data

SCHEMA = Path(__file__).resolve().parents[2] / "workflow" / "schemas" / "config.schema.yaml"
SEED = 0
AHEAD = 400  # windows that a feed is asked for at once
KEPT = 4  # windows on the device, where no whole epoch is trained


def complete_variant(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a variant's config with the schema's defaults (`lockstep.study.config` checks more,
    and needs a package for it).
    """
    schema = yaml.safe_load(SCHEMA.read_text())
    known = schema["properties"]["variants"]["additionalProperties"]["properties"]
    return {key: it["default"] for key, it in known.items() if "default" in it} | dict(settings)


def complete_recipe(workload: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a workload's recipe with some changes."""
    base = workloads.spec(workload).recipe
    whole = recipes.override(base, dict(changes), where=workload)
    return {"workload": workload, "dataset": "benchmark", **whole}


class Trial:
    """A run that goes as far as it is asked to.

    Attributes:
        preparation: what it took to be ready, seconds in all and by kind, and facts.
    """

    def __init__(
        self,
        *,
        workload: str,
        recipe: Mapping[str, Any],
        variant: Mapping[str, Any],
        manifest: Path,
        window_steps: int,
        caches: Path,
    ) -> None:
        begin = time.perf_counter()
        settings = complete_variant(variant)
        described = read_manifest(manifest)
        self.job = Job(
            workload=workloads.spec(workload),
            recipe=complete_recipe(workload, recipe),
            variant=settings,
            window_steps=window_steps,
            data=Data.of(described),
            caches=caches,
        )
        check(self.job, described)
        reader, self.test = Reader(manifest, "train"), Reader(manifest, "test")
        self.compiled = compiled.Counter(settings["framework"])
        self.engine = engines.start(self.job)
        started = time.perf_counter()
        self.initial = weights.initial(self.job.workload, self.job.recipe["model"], SEED)
        self.engine.load(self.initial)
        done = prepared(self.engine)
        self.feed = SharedFeed(self.job, reader, SEED)
        self.progress = loop.Progress()
        self.sources: dict[bool, Iterator[Window]] = {}
        self.kept: list[Window] = []  # on the device; a trial has whole epochs or single windows
        self.preparation = {
            **asdict(done),
            "start_seconds": started - begin,
            "seconds": time.perf_counter() - begin,
            "at": time.time(),
            "programs": self.compiled.since(),
            "flops_per_example": 3 * self.feed.forward_flops,
            "facts": self.engine.facts(),
        }

    # A run's epochs ------------------------------------------------------------------------------

    def restart(self) -> None:
        """Go back to the initial weights."""
        self.engine.load(self.initial)
        self.progress = loop.Progress()

    def epoch(self, on_device: bool) -> dict[str, Any]:
        """Train an epoch by the one loop and evaluate.

        Args:
            on_device: train on the windows of the first epoch, which lie on the device.

        Returns:
            Seconds of `training` (`data_wait` in it) and `evaluation`, `programs` compiled, and
            the epoch's row of the records.
        """
        feed: Feed = self.feed
        if on_device:
            feed = resident.Feed(self._on_device(), self.feed)
        before = dict(self.progress.clock.seconds)
        plan = loop.Plan(
            total_steps=self.progress.step + self.feed.steps_per_epoch,
            attempt=0,
            evaluation=lambda: evaluation_batches(self.job, self.test),
            finish=self.job.finish,
            watch=Watch(os.sched_getaffinity(0), {}),
            wish=lambda progress: loop.CONTINUE,
            save=lambda progress: None,
            report=lambda window, epoch: None,
        )
        loop.train(self.engine, feed, plan, self.progress)
        after = self.progress.clock.seconds
        spent = {name: after[name] - before[name] for name in ("training", "data_wait")}
        return {
            **spent,
            "evaluation": after["evaluation"] - before["evaluation"],
            "programs": self.compiled.since(),
            "steps": self.feed.steps_per_epoch,
            **self.progress.epochs[-1],
        }

    # Single windows ------------------------------------------------------------------------------

    def windows(self, on_device: bool, count: int, skip: int = 0) -> list[dict[str, float]]:
        """Train some windows.

        Args:
            on_device: whether they lie on the device.
            skip: windows before those that count. A feed reads ahead while others have their turn.

        Returns:
            Of each its `steps`, and seconds: `data` until it is there, `dispatch` until all its
            steps are given to the device, `device` until they are made.
        """
        source = self.sources.setdefault(on_device, self._endless(on_device))
        rows = []
        for _ in range(skip + count):
            begin = time.perf_counter()
            window = next(source)
            ready = time.perf_counter()
            pending = self.engine.train(window)
            given = time.perf_counter()
            losses, _ = self.engine.fetch(pending)
            end = time.perf_counter()
            if not np.isfinite(losses).all():
                raise FloatingPointError(f"the loss is {losses[~np.isfinite(losses)][0]}")
            spent = {"data": ready - begin, "dispatch": given - ready, "device": end - given}
            rows.append({"steps": window.steps, **spent})
        return rows[skip:]

    def _endless(self, on_device: bool) -> Generator[Window, None, None]:
        while True:
            if on_device:
                yield from self._on_device(KEPT)
            else:
                yield from self.feed.windows(0, AHEAD * self.job.window_steps)

    def _on_device(self, most: int | None = None) -> list[Window]:
        """Return the windows of the first epoch, or the first of them, on the device."""
        if not self.kept:
            windows = self.feed.windows(0, self.feed.steps_per_epoch)
            few = itertools.islice(windows, most)
            self.kept = [resident.place(self.engine, window) for window in few]
            windows.close()
        return self.kept

    def memory(self) -> dict[str, int]:
        """Return the device memory that this process had at most, in bytes."""
        return self.engine.memory()
