"""The CPUs of each process, on machines with and without hyperthreads."""

import os

import pytest

from lockstep.cluster import cpus

PLAIN = {cpu: (0, cpu) for cpu in range(4)}
FAR = {**PLAIN, **{64 + cpu: (0, cpu) for cpu in range(4)}}  # 0 and 64 are one core
NEAR = {cpu: (0, cpu // 2) for cpu in range(8)}  # 0 and 1 are
TWO_PACKAGES = {cpu: (cpu % 2, cpu // 2) for cpu in range(8)}  # numbered by turns


@pytest.mark.parametrize(
    ("cores", "processes", "threads", "shares"),
    [
        (PLAIN, 2, 4, [[0, 1], [2, 3]]),
        (PLAIN, 1, 2, [[0, 1]]),
        (FAR, 4, 8, [[0, 64], [1, 65], [2, 66], [3, 67]]),
        (FAR, 2, 4, [[0, 1], [2, 3]]),
        (FAR, 1, 4, [[0, 1, 2, 3]]),
        (NEAR, 2, 4, [[0, 2], [4, 6]]),
        (NEAR, 2, 8, [[0, 1, 2, 3], [4, 5, 6, 7]]),
        (TWO_PACKAGES, 2, 8, [[0, 2, 4, 6], [1, 3, 5, 7]]),
        (PLAIN, 6, 4, [[0], [1], [2], [3], [0], [1]]),
    ],
)
def test_processes_share_no_core_as_long_as_there_are_enough(
    cores: dict[int, cpus.Core], processes: int, threads: int, shares: list[list[int]]
) -> None:
    assert cpus.share(cores, processes, threads) == shares


def test_this_machine_gives_what_it_has() -> None:
    (share,) = cpus.shares(1, 1000)
    assert set(share) == os.sched_getaffinity(0)


def test_a_machine_that_does_not_tell_has_a_core_for_each_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpus, "TOPOLOGY", "/nowhere/cpu{}")
    assert [cpus.core_of(cpu) for cpu in (0, 5)] == [(0, 0), (0, 5)]
