"""Killed in the middle, started again with the same command: as if nothing had happened."""

import os
import signal
import subprocess

import numpy as np

from tests.conftest import PATIENCE, checkpoints, wait_for
from tests.end_to_end.checkout import BLOCKS, Checkout, losses, small
from tests.end_to_end.conftest import Finished

# A checkpoint after every window; otherwise the study that `finished` has.
STUDY = small(study="killed", checkpoints={"steps": 5})


def in_training(checkout: Checkout) -> set[str]:
    return {block for block in BLOCKS if checkpoints(checkout.results("killed"), block)}


def ended(process: subprocess.Popen) -> str:
    text, _ = process.communicate(timeout=PATIENCE)
    return text


def test_a_killed_study_goes_on_to_the_same_losses(finished: Finished, clone: Checkout) -> None:
    clone.write(STUDY)
    # Long enough to be killed on any machine; losses do not depend on it.
    saved = "    for old in _all(folder)"
    slow = f"    __import__('time').sleep(0.1)\n{saved}"
    clone.edit("workflow/lockstep/training/checkpoint.py", saved, slow)

    # All of it at once, as when the machine goes down.
    first = clone.start(start_new_session=True)
    wait_for(lambda: in_training(clone))
    os.killpg(first.pid, signal.SIGKILL)
    ended(first)
    (begun,) = in_training(clone)
    assert not (clone.results("killed") / "blocks" / f"{begun}.json").exists()

    # Snakemake alone: what it started goes on, and the next one waits for it.
    second = clone.start(start_new_session=True)
    (other,) = BLOCKS - {begun}
    wait_for(lambda: other in in_training(clone))
    second.send_signal(signal.SIGKILL)
    second.wait()

    last = clone.snakemake()
    ended(second)
    assert "study killed: 2 runs finished" in last.text
    assert "unlock" not in last.text
    for block in BLOCKS:
        ours = losses(clone.results("killed"), block)
        np.testing.assert_array_equal(ours, losses(finished.checkout.results(), block))
        assert not checkpoints(clone.results("killed"), block)
    assert clone.planned() == set()


def test_a_second_workflow_on_the_same_study_is_refused(clone: Checkout) -> None:
    clone.write(small(study="killed"))
    first = clone.start("parity", start_new_session=True)
    lease = clone.results("killed") / ".workflow"
    wait_for(lambda: lease.is_file() and lease.read_text())
    said = clone.snakemake("parity", status=2)
    assert "lockstep: error: results/killed is in use by a workflow on" in said.text
    assert "Traceback" not in said.text
    os.killpg(first.pid, signal.SIGKILL)
    ended(first)
