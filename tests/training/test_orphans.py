"""A process whose launcher died before it could ask to be told of that does not go on."""

import signal
import subprocess
import sys

from tests.conftest import PATIENCE, environment

LAUNCHER = """
import sys
from lockstep.cluster.launch import launch
launch([sys.executable, "-c", sys.argv[1]], processes=1, threads=1)
"""
WORKER = """
import os, time
launcher = os.getppid()  # before the test hears of this process, and kills the launcher
print("started", flush=True)
while os.getppid() == launcher:
    time.sleep(0.01)
from lockstep.cluster.place import Place
from lockstep.interruption import die_with_parent
die_with_parent(Place.from_environment().parent)
print("goes on")
"""


def test_a_worker_whose_launcher_died_during_its_imports() -> None:
    command = [sys.executable, "-c", LAUNCHER, WORKER]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        process.kill()
        assert process.stdout.read() == ""


def test_a_worker_whose_launcher_lives_goes_on() -> None:
    worker = WORKER.replace("while os.getppid() == launcher", "while False")
    command = [sys.executable, "-c", LAUNCHER, worker]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout == "started\ngoes on\n", done.stderr


def test_a_command_in_an_image_whose_launcher_died_on_the_way_there() -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    command = [sys.executable, "-m", "lockstep.images.watch", "sleep", "3000"]
    known = {**environment(), "LOCKSTEP_LAUNCHER": str(dead.pid)}
    assert subprocess.run(command, env=known, timeout=PATIENCE).returncode == -signal.SIGTERM
