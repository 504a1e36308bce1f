"""Why a run was started more than once, also where what ended it left it no time to say so."""

from pathlib import Path

import pytest

from lockstep import files
from lockstep.cluster import slurm
from lockstep.training import attempts

KILLED = "JobId=7 JobState=OUT_OF_MEMORY Reason=OutOfMemory ExitCode=0:125 NodeList=node1"


def test_the_next_attempt_finds_out_what_became_of_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"7": (0, KILLED), "8": (1, "slurm_load_jobs error: Invalid job id specified")}
    monkeypatch.setattr(slurm, "ask", lambda *asked: known[asked[-1]])
    path = tmp_path / "checkpoints" / "attempts.json"
    jobs = ({"id": "7"}, {"id": "7"}, {"id": "8"}, {}, {})
    made = [attempts.added(path, job) for job in jobs][-1]
    assert [attempt["job"] for attempt in made] == ["7", "7", "8", None, None]
    assert [attempt["reason"] for attempt in made] == [
        attempts.AGAIN,
        "job 7 ended as OUT_OF_MEMORY (OutOfMemory, exit 0:125)",
        f"{attempts.SILENT} (SLURM has forgotten job 8)",
        attempts.SILENT,
        None,
    ]


@pytest.mark.parametrize(
    ("noticed", "found"),
    [
        (None, attempts.AGAIN),
        ("signal 15", attempts.AGAIN),
        ("exit status 1", attempts.AGAIN),
        (attempts.STOPPED, attempts.STOPPED),
    ],
)
def test_what_processes_noticed_of_a_requeue_is_not_its_reason(
    tmp_path: Path, noticed: str | None, found: str
) -> None:
    path = tmp_path / "attempts.json"
    made = attempts.added(path, {"id": "7", "restarts": 0})
    made[-1]["reason"] = noticed
    files.write_json(path, made)
    assert attempts.added(path, {"id": "7", "restarts": 1})[0]["reason"] == found


def test_an_attempt_after_another_in_one_start_of_a_job_was_not_requeued(tmp_path: Path) -> None:
    path = tmp_path / "attempts.json"
    made = attempts.added(path, {"id": "7", "restarts": 1})
    made[-1]["reason"] = "exit status 1"
    files.write_json(path, made)
    assert attempts.added(path, {"id": "7", "restarts": 1})[0]["reason"] == "exit status 1"
