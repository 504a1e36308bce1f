"""Watches who has the machine while a run trains: columns of its windows, part of its summary."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from lockstep.cluster import gpus, kernel
from lockstep.training import contention

SPAN = 0.5  # seconds between readings of /proc/stat, which counts in hundredths of a second
LAST_SPAN = 0.2  # seconds before a run's last reading
MICRO = 1e6
UNKNOWN = -1  # among what ranks tell each other
LARGEST = 2**31 - 1


class Watch:
    """The watch of one rank.

    After each window a rank says what it saw (`told`), and what is largest of all ranks becomes the
    window's columns (`columns`). Where the kernel does not tell, they are empty.
    """

    def __init__(
        self,
        cpus: Collection[int],
        sums: dict[str, float],
        problem: str | None = None,
    ) -> None:
        """Begin to watch.

        Args:
            cpus: of this process.
            sums: what earlier attempts have added up; this one adds to it.
            problem: why nothing is to be watched.
        """
        self.cpus = tuple(cpus)
        self.sums = sums
        load = kernel.load()
        if load is not None:
            self.sums["load"] = max(load, self.sums.get("load", 0.0))
        self.problem = problem
        self._delay = kernel.RunDelay()
        self._gpus = gpus.GpuWatch()
        self._cpu = kernel.cpu_time(cpus)
        if self.problem is None and self._cpu is None:
            self.problem = "the kernel does not tell how long CPUs are idle (/proc/stat)"
        self._waited: float | None = None
        self._switches = 0
        self.skip()

    def skip(self) -> None:
        """Leave out of the next window what was done since the last one: an evaluation, a save."""
        self._read(look=True)

    def _read(self, *, look: bool) -> None:
        self._waited = self._delay.seconds(look=look)
        self._switches = kernel.involuntary_switches()
        self.problem = self.problem or self._delay.problem

    def told(self, *, last: bool = False) -> list[int]:
        """Return what this rank saw of the window that has just ended, one number a column.

        Args:
            last: it is the run's last one, after which no reading comes.
        """
        waited, switches = self._waited, self._switches
        share = self._foreign(LAST_SPAN if last else SPAN)
        self._read(look=share is not None)
        self._gpus.read()
        if self.problem or waited is None or self._waited is None:
            return [UNKNOWN, self._switches - switches, UNKNOWN]
        return [
            min(round(MICRO * (self._waited - waited)), LARGEST),
            self._switches - switches,
            UNKNOWN if share is None else round(MICRO * share),
        ]

    def _foreign(self, span: float) -> float | None:
        """Return the share of the CPUs that others had since the last reading, if that was then."""
        before = self._cpu
        if self.problem or before is None or time.monotonic() - before.at < span:
            return None
        now = kernel.cpu_time(self.cpus)
        if now is None:
            return None
        self._cpu = now
        count, passed = len(self.cpus), now.at - before.at
        share = kernel.foreign(before, now, count)
        told = {
            "seconds": passed,
            "foreign": passed * share,
            "steal": (now.steal - before.steal) / count,
        }
        if now.pressure is not None and before.pressure is not None:
            told["pressure"] = now.pressure - before.pressure
        for name, value in told.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        return share

    def close(self) -> None:
        """Let go of what is open."""
        self._delay.close()

    @staticmethod
    def columns(largest: Sequence[int]) -> dict[str, Any]:
        """Return a window's columns from what was largest of what the ranks told."""
        waited, switches, share = (None if value == UNKNOWN else value for value in largest)
        return {
            "run_delay_seconds": None if waited is None else waited / MICRO,
            "involuntary_switches": switches,
            "foreign_cpu_share": None if share is None else share / MICRO,
        }

    def summary(self, windows: Sequence[Mapping[str, Any]], gave_up: bool) -> dict[str, Any]:
        """Return `contention` of a run's summary.

        Args:
            windows: the run's rows.
            gave_up: whether it ended for being disturbed.
        """
        steady = [row for row in windows if not row["warm_up"]]
        counted = contention.counts(contention.columns(windows), len(self.cpus))
        waited = [row["run_delay_seconds"] for row in steady]
        switched = [row["involuntary_switches"] for row in steady]
        watched = self.problem is None
        return {
            "watched": watched,
            "reason": self.problem,
            "gave_up": gave_up,
            "cpus": len(self.cpus),
            "steady_windows": len(steady),
            "undisturbed_windows": int(counted.sum()),
            "run_delay_seconds": sum(waited) if watched and None not in waited else None,
            "involuntary_switches": sum(switched) if None not in switched else None,
            "foreign_cpu_share": self._share("foreign"),
            "steal_share": self._share("steal"),
            "pressure": self._share("pressure"),
            "load_at_start": self.sums.get("load"),
            "gpu": self._gpus.facts(),
        }

    def _share(self, name: str) -> float | None:
        if name not in self.sums:
            return None
        return self.sums[name] / self.sums["seconds"]
