"""What the kernel tells of waiting threads and of other work; nothing here times anything."""

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from lockstep.cluster import kernel
from tests.conftest import PATIENCE

CONTEXT = multiprocessing.get_context("fork")


def burn(cpu: int) -> None:
    """Compute on one CPU until the parent ends this process, or itself."""
    os.sched_setaffinity(0, {cpu})
    parent = os.getppid()
    while os.getppid() == parent:
        pass


@contextmanager
def burning(cpu: int) -> Iterator[int]:
    process = CONTEXT.Process(target=burn, args=(cpu,), daemon=True)
    process.start()
    try:
        assert process.pid is not None
        yield process.pid
    finally:
        process.kill()
        process.join()


@pytest.fixture
def one_cpu() -> Iterator[int]:
    """This process on one CPU only."""
    before = os.sched_getaffinity(0)
    cpu = min(before)
    os.sched_setaffinity(0, {cpu})
    yield cpu
    os.sched_setaffinity(0, before)


def compute_until(condition: Callable[[], bool]) -> None:
    """Keep this thread busy until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        for _ in range(100_000):
            pass


def test_a_process_beside_us_raises_our_run_delay_and_takes_our_cpu(one_cpu: int) -> None:
    delay = kernel.RunDelay()
    begun, switches = delay.seconds(), kernel.involuntary_switches()
    assert begun is not None
    with burning(one_cpu):
        compute_until(lambda: (delay.seconds() or 0.0) > begun + 0.2)
    assert kernel.involuntary_switches() > switches
    delay.close()


def test_what_a_child_computes_is_no_foreign_work(one_cpu: int) -> None:
    before = kernel.cpu_time([one_cpu])
    assert before is not None
    own = kernel.own_seconds()
    with burning(one_cpu) as child:
        # As long as it lives, and after it was waited for.
        compute_until(lambda: kernel._seconds_of(child) > 0.3)
        assert kernel.own_seconds() - own > 0.3
    used = kernel.own_seconds() - own
    assert used > 0.3
    after = kernel.cpu_time([one_cpu])
    assert after is not None
    assert after.own - before.own >= used


def test_foreign_work_is_what_is_neither_idle_nor_stolen_nor_our_own() -> None:
    def at(seconds: float, idle: float, steal: float, own: float) -> kernel.CpuTime:
        return kernel.CpuTime(at=seconds, idle=idle, steal=steal, own=own, pressure=None)

    assert kernel.foreign(at(10, 5, 0, 1), at(12, 6, 0, 4), cpus=2) == 0
    assert kernel.foreign(at(10, 5, 0, 1), at(12, 6, 0, 3), cpus=2) == pytest.approx(0.25)
    assert kernel.foreign(at(10, 5, 0, 1), at(12, 6, 1, 3), cpus=2) == 0
    # Hundredths of a second round: what is below 0 is none.
    assert kernel.foreign(at(10, 5, 0, 1), at(12, 8, 0, 3), cpus=2) == 0


def test_threads_that_have_ended_still_count(one_cpu: int) -> None:
    delay = kernel.RunDelay()
    delay.seconds()
    stop = threading.Event()

    def compute() -> None:
        while not stop.is_set():
            pass

    threads = [threading.Thread(target=compute) for _ in range(3)]
    for thread in threads:
        thread.start()
    with burning(one_cpu):
        begun = delay.seconds() or 0.0
        compute_until(lambda: (delay.seconds() or 0.0) > begun + 0.2)
    stop.set()
    seen = delay.seconds() or 0.0
    for thread in threads:
        thread.join()
    assert (delay.seconds() or 0.0) >= seen
    delay.close()


def test_the_busiest_process_is_named(one_cpu: int) -> None:
    with burning(one_cpu) as child:
        found = kernel.busiest(0.3)
        shares = {busy.process: busy.share for busy in found}
        assert shares[child] > 0
        assert [busy.share for busy in found] == sorted(shares.values(), reverse=True)
        assert child not in {busy.process for busy in kernel.busiest(0.1, besides=[child])}


def test_a_kernel_that_does_not_tell_is_no_error(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(kernel, "STAT", tmp_path / "stat")
    monkeypatch.setattr(kernel, "TASKS", str(tmp_path))
    (tmp_path / "123").mkdir()  # a thread without `schedstat`
    assert kernel.cpu_time([0]) is None
    delay = kernel.RunDelay()
    assert delay.seconds() is None
    assert delay.problem is not None
    assert "schedstat" in delay.problem
    (tmp_path / "stat").write_text("cpu  1 0 1 10 0 0 0 0 0 0\ncpu7 1 0 1 10 5 0 0 2 0 0\n")
    assert kernel.cpu_time([0]) is None, "a CPU that is not listed"
    told = kernel.cpu_time([7])
    assert told is not None
    assert told.idle == 15 / kernel.TICKS
    assert told.steal == 2 / kernel.TICKS
