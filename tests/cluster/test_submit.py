"""What stands before sbatch: whether the job of an earlier start still lives, as squeue says it."""

import io
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep import code
from lockstep.cluster import notices, slurm, submit, targets
from lockstep.errors import UserError
from lockstep.study import Study, config
from tests.conftest import DIGITS

LINE = ["--job-name", "new", "--wrap", "snakemake --target-jobs a --allowed-rules b"]


class Programs:
    """SLURM's programs, saying what a test has them say; they count their calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def write(self, name: str, script: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/sh\necho >>'{self.folder}/{name}.calls'\n{script}\n")
        path.chmod(0o755)

    def log(self) -> str:
        """What the workflow would show."""
        return notices.log(Path(os.environ[submit.FOLDER])).read_text()

    def calls(self, name: str) -> int:
        path = self.folder / f"{name}.calls"
        return len(path.read_text().splitlines()) if path.is_file() else 0


def places(folder: Path) -> dict[str, str]:
    return {"results": str(folder), "data": str(folder)}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """A job 7 was submitted by an earlier start; sbatch would now give number 8."""
    made = Programs(tmp_path / "programs")
    made.write("sbatch", "echo 7")
    made.write("scontrol", "true")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    monkeypatch.setenv(submit.FOLDER, str(tmp_path / "study" / "jobs"))
    monkeypatch.setenv(submit.STATE, "unchanged")
    monkeypatch.setattr(slurm, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(slurm, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(submit, "ENDING", 0.01)
    assert submit.main(LINE) == 0
    made.write("sbatch", "echo 8")
    (made.folder / "sbatch.calls").unlink()
    return made


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "STOPPED", "REQUEUE_HOLD", "STAGE_OUT"])
def test_a_job_in_any_state_but_an_ended_one_is_adopted(
    programs: Programs, capfd: pytest.CaptureFixture, state: str
) -> None:
    programs.write("squeue", f"echo {state} me")
    assert submit.main(LINE) == 0
    assert capfd.readouterr().out.split()[-1] == "7"
    assert programs.calls("sbatch") == 0


@pytest.mark.parametrize(
    "squeue",
    [
        "echo COMPLETED me",
        "echo TIMEOUT me",
        "true",
        "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1",
    ],
)
def test_a_job_that_has_ended_or_is_forgotten_is_submitted_anew(
    programs: Programs, capfd: pytest.CaptureFixture, squeue: str
) -> None:
    programs.write("squeue", squeue)
    assert submit.main(LINE) == 0
    assert capfd.readouterr().out.split()[-1] == "8"


def test_a_controller_that_answers_late_is_asked_again(
    programs: Programs, capfd: pytest.CaptureFixture
) -> None:
    late = f"[ $(wc -l <'{programs.folder}/squeue.calls') -gt 2 ] || exit 1"
    programs.write("squeue", f"{late}; echo RUNNING me")
    assert submit.main(LINE) == 0
    assert capfd.readouterr().out.split()[-1] == "7"
    assert programs.calls("sbatch") == 0


def test_while_slurm_is_silent_nothing_is_submitted_and_the_silence_is_told_once(
    programs: Programs, capfd: pytest.CaptureFixture
) -> None:
    silent = "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1"
    programs.write(
        "squeue", f"[ $(wc -l <'{programs.folder}/squeue.calls') -gt 9 ] || {{ {silent}; }}"
    )
    assert submit.main(LINE) == 0
    assert programs.calls("squeue") == 10
    said = programs.log()
    assert said.count("SLURM does not answer (slurm_load_jobs error: Unable to contact") == 1
    assert said.count("SLURM answers again") == 1


@pytest.mark.parametrize(
    "said",
    [
        "Socket timed out on send/recv operation",
        "Unable to contact slurm controller (connect failure)",
        "Slurm temporarily unable to accept job, sleeping and retrying",
        "QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job violates "
        "accounting/QOS policy (job submit limit, user's size and/or time limits)",
    ],
)
def test_a_refusal_that_passes_is_waited_out(
    programs: Programs, capfd: pytest.CaptureFixture, said: str
) -> None:
    programs.write("squeue", "[ $1 = --me ] || echo COMPLETED me")
    again = f"[ $(wc -l <'{programs.folder}/sbatch.calls') -gt 3 ]"
    programs.write("sbatch", f'{again} || {{ echo "sbatch: error: {said}" >&2; exit 1; }}; echo 9')
    capfd.readouterr()
    assert submit.main([*LINE, "--comment", "train"]) == 0
    told = capfd.readouterr()
    assert told.out.split() == ["9"]
    assert told.err == ""
    assert programs.log().count("a cannot be submitted now (") == 1


@pytest.mark.parametrize(
    "said",
    [
        "Invalid account or account/partition combination specified",
        "QOSMaxWallDurationPerJobLimit\nsbatch: error: Batch job submission failed: Job violates "
        "accounting/QOS policy (job submit limit, user's size and/or time limits)",
    ],
)
def test_a_refusal_that_stays_ends_at_once_with_all_that_was_said(
    programs: Programs, capfd: pytest.CaptureFixture, said: str
) -> None:
    programs.write("squeue", "[ $1 = --me ] || echo COMPLETED me")
    programs.write("sbatch", f'echo "sbatch: error: {said}" >&2; exit 1')
    assert submit.main([*LINE, "--comment", "train"]) == 1
    assert said in capfd.readouterr().err
    assert programs.calls("sbatch") == 1


def test_a_job_of_another_person_is_neither_adopted_nor_joined_by_a_twin(
    programs: Programs, tmp_path: Path
) -> None:
    programs.write("squeue", 'case "$*" in *%U*) echo 7 1 anna;; *) echo PENDING anna;; esac')
    for name in ("scontrol", "scancel"):
        programs.write(name, "echo 'Access/permission denied' >&2; exit 1")
    with pytest.raises(UserError, match=r"job 7 of anna makes a of this study"):
        submit.main(LINE)
    assert programs.calls("sbatch") == 0
    study = Study(config.complete({**DIGITS, "study": "study", "paths": places(tmp_path)}))
    with pytest.raises(UserError, match=r"job 7 of anna makes a of this study"):
        submit.begin(study)


def test_scripts_on_standard_input_are_told_apart_by_their_targets(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    programs.write("squeue", "echo RUNNING me")
    programs.write("sbatch", "cat >&2; echo 8")
    line = ["--job-name", "new", "/dev/stdin"]
    script = "#!/bin/sh\nsnakemake --target-jobs 'b:x=1' --allowed-rules b\n"
    numbers = []
    for text in (script, script, "#!/bin/sh\ntrue\n", "#!/bin/sh\ntrue\n"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        assert submit.main(line) == 0
        numbers.append(programs.calls("sbatch"))
    assert numbers == [1, 1, 2, 3], "one that is known by its target is adopted, no other"
    assert "snakemake --target-jobs" in programs.log(), "it was given its script"


def test_a_node_that_failed_meanwhile_is_no_other_request(
    programs: Programs, capfd: pytest.CaptureFixture
) -> None:
    """The plugin excludes it in all that it submits, until its workflow ends."""
    programs.write("squeue", "echo RUNNING me")
    assert submit.main([*LINE, "--exclude=node1"]) == 0
    assert capfd.readouterr().out.split()[-1] == "7"
    # scancel ends the job.
    ends = f"printf '#!/bin/sh\\necho CANCELLED me\\n' >{programs.folder}/squeue"
    programs.write("scancel", ends)
    assert submit.main([*LINE, "--nodes=2"]) == 0
    assert capfd.readouterr().out.split()[-1] == "8"


def test_a_job_that_was_accepted_although_sbatch_failed_is_no_failure(
    programs: Programs, capfd: pytest.CaptureFixture
) -> None:
    line = [*LINE, "--comment", "train"]
    said = "sbatch: error: Batch job submission failed: Socket timed out"
    programs.write("sbatch", f"echo '{said}' >&2; exit 1")
    # Another job is not this one, which the controller takes at the second try.
    taken = f"[ $(wc -l <'{programs.folder}/sbatch.calls') -gt 1 ] && echo '9 PENDING train'"
    programs.write(
        "squeue",
        f"[ $1 = --me ] || {{ echo COMPLETED me; exit; }}; {taken}; echo '8 RUNNING trace'",
    )
    capfd.readouterr()
    assert submit.main(line) == 0
    assert programs.calls("sbatch") == 2
    accepted = capfd.readouterr()
    assert accepted.out.split() == ["9"]
    assert "submission failed" not in accepted.err, "which the plugin looks for"
    programs.write("squeue", "echo PENDING me")
    assert submit.main(line) == 0, "the next start adopts it"
    assert capfd.readouterr().out.split() == ["9"]


def test_a_job_is_found_that_was_accepted_as_its_submission_was_killed(
    programs: Programs, capfd: pytest.CaptureFixture
) -> None:
    """By SIGKILL, after the controller has taken it and before anybody has noted its number."""
    programs.write("squeue", "[ $1 = --me ] || echo COMPLETED me")
    programs.write("sbatch", "kill -9 $PPID; echo 9")
    line = [*LINE, "--comment", "train"]
    shim = [sys.executable, "-m", "lockstep.cluster.client", "sbatch"]
    killed = subprocess.run([*shim, *line])
    assert killed.returncode == -signal.SIGKILL
    known = "[ $1 = --me ] && [ $3 = --name=new ] && echo '9 PENDING train' || echo PENDING me"
    programs.write("squeue", known)
    (programs.folder / "sbatch.calls").unlink()
    capfd.readouterr()
    for _ in range(2):  # the second time by its number
        assert submit.main([*LINE[2:], "--job-name", "newer", "--comment", "train"]) == 0
        assert capfd.readouterr().out.split() == ["9"]
        programs.write("squeue", "echo PENDING me")
    assert programs.calls("sbatch") == 0


BLOCK = "train:block=mnist_cnn/torch-eager/1x1/seed-{}"


def test_a_job_is_decided_about_by_what_its_runs_are_determined_by() -> None:
    def states(**changes: object) -> dict[str, str]:
        return targets.own_states(Study(config.complete({**DIGITS, **changes})))

    before = states()
    assert BLOCK.format(0) in before
    assert "trace:workload=mnist_cnn,variant=jax-jit" in before
    grown = states(seeds=[0, 1], archive={"title": "Another"})
    assert grown.items() > before.items()
    changed = states(window_steps=6)
    assert changed.keys() == before.keys()
    assert changed[BLOCK.format(0)] != before[BLOCK.format(0)]


def test_jobs_of_what_the_study_no_longer_has_are_cancelled_at_the_start(
    programs: Programs, tmp_path: Path
) -> None:
    study = Study(config.complete({**DIGITS, "study": "study", "paths": places(tmp_path)}))
    for seed, number in ((0, 70), (1, 71), (2, 72)):
        programs.write("sbatch", f"echo {number}")
        wrapped = f"snakemake --target-jobs {BLOCK.format(seed)} --allowed-rules train"
        assert submit.main(["--job-name", "old", "--wrap", wrapped]) == 0
    programs.write(
        "squeue", 'case "$*" in *--jobs?72*) echo COMPLETED me;; *--jobs*) echo RUNNING me;; esac'
    )
    programs.write("scancel", f'echo "$@" >>{programs.folder}/cancelled')
    submit.begin(study)
    assert (programs.folder / "cancelled").read_text() == "71\n"
    submit.begin(study)
    assert (programs.folder / "cancelled").read_text() == "71\n"


def test_a_changed_comment_cancels_no_job_and_changed_code_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mark of what jobs were submitted with, over copies of the package."""
    study = Study(config.complete(DIGITS))

    def mark(name: str, line: str) -> str:
        copy = tmp_path / name / "lockstep"
        shutil.copytree(code.PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        with open(copy / "report" / "build.py", "a") as stream:
            stream.write(line)
        monkeypatch.setattr(code, "PACKAGE", copy)
        return targets.all_states(study)

    comment, changed = "# more words\n", "MORE = 1\n"
    assert mark("one", "") == mark("two", comment) != mark("three", changed)
