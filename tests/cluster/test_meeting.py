"""What the roll call finds out about the nodes, and which of a run's failures came first."""

import threading
import time
from pathlib import Path

import pytest

from lockstep import files
from lockstep.cluster import failures, meeting, start
from lockstep.errors import UserError


def test_a_node_learns_how_far_its_clock_is_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write_json(tmp_path / "node-0000.json", {})
    first = threading.Thread(target=meeting.receive, args=(tmp_path, "127.0.0.1", 2))
    first.start()
    seen = meeting.visit(tmp_path)
    first.join(timeout=30)
    assert not first.is_alive(), "it waits for a node that has come"
    assert 0 <= seen["clock_ahead"] < 5


def test_a_blocked_port_and_a_wrong_clock_are_told_by_node(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    files.write_json(tmp_path / meeting.ADDRESS, {"host": "127.0.0.1", "port": 1})
    seen = meeting.visit(tmp_path)
    nodes = [{"facts": {"node": f"node{k}"}} for k in (1, 2, 3)]
    nodes[1] |= {"clock_ahead": 7200.0}
    start._check_network(nodes)
    assert "the clock of node2 is 7200 s ahead of that of node1" in capfd.readouterr().err
    nodes[2] |= seen
    with pytest.raises(UserError, match=r"node3 cannot reach node1 \(127.0.0.1, port 1: .*refused"):
        start._check_network(nodes)


def note(folder: Path, rank: int, status: int, said: str | None = None) -> None:
    failures.note({"LOCKSTEP_RENDEZVOUS": str(folder), "LOCKSTEP_RANK": str(rank)}, status, said)


def test_the_reason_is_of_the_process_that_failed_first(tmp_path: Path) -> None:
    assert failures.first(tmp_path) is None
    note(tmp_path, 1, 1, "RuntimeError: connection timed out")
    note(tmp_path, 1, 1)  # its launcher, which knows less
    note(tmp_path, 0, 1, "RuntimeError: connection closed by peer")
    assert (failures.first(tmp_path) or "").startswith("RuntimeError: connection timed out (rank 1")


def test_a_killed_process_is_the_cause_of_what_its_peers_see(tmp_path: Path) -> None:
    note(tmp_path, 0, 1, "RuntimeError: connection closed by peer")
    time.sleep(0.01)
    note(tmp_path, 1, 128 + 9)
    assert (failures.first(tmp_path) or "").startswith("signal 9 (rank 1 on ")
