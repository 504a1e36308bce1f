"""What the processes of a run find in their environment."""

from pathlib import Path

import pytest

from lockstep.cluster.launch import launch


def test_no_proxy_stands_between_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "grpc_proxy", "no_proxy"):
        monkeypatch.setenv(name, "http://proxy:3128")
    seen = tmp_path / "environment"
    assert launch(["sh", "-c", f"env >{seen}"], processes=1, threads=1) == 0
    names = [line.partition("=")[0] for line in seen.read_text().splitlines()]
    assert "LOCKSTEP_RANK" in names
    assert not [name for name in names if name.lower().endswith("_proxy")]
