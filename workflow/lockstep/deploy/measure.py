"""Times a route in a fresh process, in MLPerf's terms. It is not an MLPerf result.

SingleStream: one example a query, the next one when the last is answered, from arrays in host
memory to logits in host memory. Offline: batches of one size, one after the other. MLPerf's own
rules ask for more: minutes, and many more queries.
"""

import itertools
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.cluster import kernel
from lockstep.deploy import serving
from lockstep.deploy.reading import Answer, Arrays
from lockstep.deploy.task import Task

WARM_UP = 50  # queries
LEAST_NS = 200_000_000  # of SingleStream, however fast a route is
WINDOWS, WINDOW = 10, 0.015  # of Offline, and the seconds of each at least
PERCENTILES = (50, 90, 99)


def main(task: Task) -> dict[str, Any]:
    """Return what was measured of a route in this process."""
    asked = serving.questions(task)
    opened = serving.open_route(task, asked)
    watch = Watch(task.threads)
    single = single_stream(opened.answer, asked, task.queries, watch.delay)
    offline = [throughput(opened.answer, asked, batch) for batch in task.batches]
    return {
        "cold_seconds": opened.seconds,
        "single_stream": single,
        "offline": offline,
        "peak_bytes": peak_bytes(),
        **watch.told(),
    }


def single_stream(
    answer: Answer, asked: Arrays, queries: int, delay: kernel.RunDelay
) -> dict[str, Any]:
    """Return percentiles of the seconds of a query, the share of a CPU that this process had, and
    how long its threads waited for one, as a share of the time (None if the kernel does not tell).
    """
    examples = len(next(iter(asked.values())))
    singles = [{n: a[k : k + 1] for n, a in asked.items()} for k in range(examples)]
    for k in range(WARM_UP):
        answer(singles[k % examples])
    taken: list[int] = []
    before, cpu, begin = delay.seconds(), time.process_time_ns(), time.perf_counter_ns()
    start = begin
    while len(taken) < queries or start - begin < LEAST_NS:
        question = singles[len(taken) % examples]
        start = time.perf_counter_ns()
        answer(question)
        taken.append(time.perf_counter_ns() - start)
    whole = time.perf_counter_ns() - begin
    share, after = (time.process_time_ns() - cpu) / whole, delay.seconds()
    waited = None if before is None or after is None else (after - before) * 1e9 / whole
    found = np.array(taken)
    seconds = {f"p{p}": percentile(found, p) / 1e9 for p in PERCENTILES}
    shares = {"cpu_share": min(1.0, share), "waited_share": waited}
    return {"queries": len(taken), "seconds": seconds, **shares}


def percentile(values: np.ndarray, percent: float) -> float:
    """Return the smallest of `values` that so many percent of them do not exceed."""
    return float(np.sort(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)])


def throughput(answer: Answer, asked: Arrays, batch: int) -> dict[str, Any]:
    """Return the median rate of some windows, each of one batch or more."""
    examples = len(next(iter(asked.values())))
    count = -(-examples // batch)
    places = [np.arange(k * batch, (k + 1) * batch) % examples for k in range(count)]
    batches = [{n: a[place] for n, a in asked.items()} for place in places]
    answer(batches[0])  # which compiles, where a program is of one size
    coming = itertools.cycle(batches)
    rates = [_rate(answer, coming, batch) for _ in range(WINDOWS)]
    return {"batch": batch, "windows": WINDOWS, "samples_per_second": float(np.median(rates))}


def _rate(answer: Answer, coming: Iterator[Arrays], batch: int) -> float:
    begin, samples, passed = time.perf_counter(), 0, 0.0
    while passed < WINDOW:
        answer(next(coming))
        samples, passed = samples + batch, time.perf_counter() - begin
    return samples / passed


def peak_bytes() -> int | None:
    """Return the most memory that this process has had; None if the kernel does not tell.

    `getrusage` would count what the process that started it had.
    """
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


class Watch:
    """Who else had this process's CPUs while it was timed (`lockstep.training.contention`)."""

    def __init__(self, threads: int) -> None:
        self.cpus, self.threads = os.sched_getaffinity(0), threads
        self.delay = kernel.RunDelay()
        self.waited, self.cpu = self.delay.seconds(), kernel.cpu_time(self.cpus)
        self.begin = time.perf_counter()

    def told(self) -> dict[str, Any]:
        """Return seconds that passed and were waited, and others' share; None if not known."""
        passed = time.perf_counter() - self.begin
        waited, cpu = self.delay.seconds(), kernel.cpu_time(self.cpus)
        self.delay.close()
        share = delay = None
        if self.cpu is not None and cpu is not None:
            share = kernel.foreign(self.cpu, cpu, len(self.cpus))
        if waited is not None and self.waited is not None:
            delay = waited - self.waited
        return {"timed_seconds": passed, "run_delay_seconds": delay, "foreign_cpu_share": share}
