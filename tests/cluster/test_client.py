"""SLURM's programs as the plugin calls them, where SLURM is silent, forgets, or is not whole."""

import asyncio
import os
from pathlib import Path

import pytest

from lockstep import files
from lockstep.cluster import client, notices, slurm, watch
from tests.cluster.test_submit import Programs

POLL = ["--format=%i|%T", "--states=all", "--noheader", "--name", "run"]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Jobs 7 and 8 of one workflow are noted, and no program is there but those of a test."""
    made = Programs(tmp_path / "programs")
    notes = tmp_path / "study" / "jobs"
    for job in ("7", "8"):
        note = {"job": job, "job-name": "run", "target": f"train:{job}", "request": []}
        files.write_json(notes / f"{job}.json", note)
    monkeypatch.setenv("PATH", f"{made.folder}:/usr/bin:/bin")
    monkeypatch.setenv(notices.FOLDER, str(notes))
    monkeypatch.setattr(slurm, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(slurm, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(client, "PATIENCE", 0.5)
    return made


def answer(capfd: pytest.CaptureFixture, name: str, *arguments: str) -> str:
    """Return what a program prints, which never fails."""
    capfd.readouterr()
    assert client.main(name, arguments) == 0
    return capfd.readouterr().out


def test_silence_is_no_news(programs: Programs, capfd: pytest.CaptureFixture) -> None:
    programs.write("squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    assert answer(capfd, "squeue", *POLL) == ""
    assert programs.calls("squeue") > 2
    assert programs.log().count("SLURM does not answer") == 1
    programs.write("squeue", "echo '7|RUNNING'; echo '8|PENDING'")
    assert answer(capfd, "squeue", *POLL).split() == ["7|RUNNING", "8|PENDING"]
    assert programs.log().count("SLURM answers again") == 1


def test_jobs_in_a_partition_that_was_closed_meanwhile_are_seen(
    programs: Programs, capfd: pytest.CaptureFixture
) -> None:
    # As SLURM does: without --all it shows nothing of partitions that are closed to a person.
    programs.write("squeue", 'case "$*" in *--all*) echo "7|PENDING"; echo "8|RUNNING";; esac')
    assert answer(capfd, "squeue", *POLL).split() == ["7|PENDING", "8|RUNNING"]


def test_how_jobs_have_ended_is_remembered_and_what_was_lost_has_failed(
    programs: Programs, capfd: pytest.CaptureFixture
) -> None:
    programs.write("squeue", "echo '7|COMPLETED'; echo '8|RUNNING'")
    assert answer(capfd, "squeue", *POLL).split() == ["7|COMPLETED", "8|RUNNING"]
    programs.write("squeue", "true")  # a controller that came back without its memory
    for _ in range(2):
        assert sorted(answer(capfd, "squeue", *POLL).split()) == ["7|COMPLETED", "8|FAILED"]
    assert programs.log().count("job 8 (train:8) is unknown to SLURM") == 1


@pytest.mark.parametrize("state", ["NODE_FAIL", "PREEMPTED"])
def test_what_slurm_does_not_start_again_has_failed(
    programs: Programs, capfd: pytest.CaptureFixture, state: str
) -> None:
    programs.write("squeue", f"echo '7|{state}'; echo '8|RUNNING'")
    assert answer(capfd, "squeue", *POLL).split() == ["7|FAILED", "8|RUNNING"]


def test_programs_that_a_site_does_not_have_say_nothing(
    programs: Programs, capfd: pytest.CaptureFixture
) -> None:
    for name in ("sacct", "sacctmgr", "sshare"):
        assert answer(capfd, name, "-n") == ""
    programs.write("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert answer(capfd, "sacct", "--name", "run") == ""


def test_the_configuration_is_asked_once(programs: Programs, capfd: pytest.CaptureFixture) -> None:
    programs.write("scontrol", "echo 'MinJobAge = 300 sec'; echo WORD=WORD >&2")
    client.keep_config(Path(os.environ[notices.FOLDER]))
    programs.write("scontrol", "sleep 60")
    assert answer(capfd, "scontrol", "show", "config") == "MinJobAge = 300 sec\n"


def test_what_happens_to_jobs_is_a_line_each(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    targets = {"7": "train:7", "8": "train:8"}
    before = {"7": "RUNNING", "8": "RUNNING"}
    assert watch.news(before, {"7": "COMPLETED", "8": "RUNNING", "9": "FAILED"}, targets) == []
    assert watch.news(before, {"7": "PENDING", "8": "OUT_OF_MEMORY"}, targets) == [
        "job 7 (train:7) was taken from its nodes and is queued again",
        "job 8 (train:8) has ended as OUT_OF_MEMORY",
    ]
    log = tmp_path / "log"
    log.write_text("2026-01-01 10:00:00 one\n2026-01-01 10:00:01 half a li")
    shown = watch.show(log, 0)
    with open(log, "a") as stream:
        stream.write("ne\n")
    watch.show(log, shown)
    assert capfd.readouterr().err.splitlines() == ["lockstep: one", "lockstep: half a line"]


def test_the_plugin_asks_as_soon_as_a_job_has_ended() -> None:
    watch._ended.set()
    asyncio.run(asyncio.wait_for(watch._sleep(3600), timeout=60))
    assert not watch._ended.is_set()
