"""Two workflows never work on one study, and a dead one keeps nobody out."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep.errors import UserError
from lockstep.study import lease
from tests.conftest import environment

HOLD = "import sys, time, pathlib; from lockstep.study import lease; "
HOLD += "lease.take(pathlib.Path(sys.argv[1])); print('taken', flush=True); time.sleep(60)"


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that has the lease of the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "taken\n"
        yield process
        process.kill()


def test_a_second_one_is_told_who_is_there(tmp_path: Path, holder: subprocess.Popen) -> None:
    for _ in range(2):  # asking changes nothing
        with pytest.raises(UserError, match=f"at work here .process {holder.pid} on .* since 20"):
            lease.take(tmp_path)


def test_nothing_is_left_of_one_that_was_killed(tmp_path: Path, holder: subprocess.Popen) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    lease.take(tmp_path)


def test_other_studies_are_free(tmp_path: Path, holder: subprocess.Popen) -> None:
    lease.take(tmp_path / "other")
