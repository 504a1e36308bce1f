"""Signals to a launcher reach every process that it starts, once, whenever they come."""

import os
import signal
import subprocess
import sys

import pytest

from lockstep.cluster.relay import relay
from tests.conftest import PATIENCE

TOLD = """
import signal, sys
got = []
for name in ("SIGUSR1", "SIGUSR2", "SIGTERM"):
    signal.signal(signal.Signals[name], lambda number, frame: got.append(int(number)))
print("ready", flush=True)
sys.stdin.readline()
print(sorted(got), flush=True)
"""
SENT = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM]


class Interrupted(subprocess.Popen):
    """A process that is ready, and not yet in the hands of its starter, when a signal comes."""

    coming = iter(SENT)

    def __init__(self, command: list[str], **more: object) -> None:
        super().__init__(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)
        assert self.stdout is not None
        assert self.stdout.readline() == "ready\n"
        os.kill(os.getpid(), next(self.coming))


def test_a_signal_in_the_middle_of_a_start_reaches_all_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with relay() as started:
        for _ in SENT:
            started.start([sys.executable, "-c", TOLD])
        answers = [
            child.communicate("\n", timeout=PATIENCE)[0].strip() for child in started.children
        ]
    assert answers == [str(sorted(map(int, SENT)))] * 3


def test_nothing_is_left_and_handlers_are_as_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with relay() as started:
        child = started.start([sys.executable, "-c", "import time; time.sleep(60)"])
    assert child.returncode == -signal.SIGKILL
    assert signal.getsignal(signal.SIGTERM) == before
