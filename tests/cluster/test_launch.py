"""What the processes of a run find in their environment."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lockstep import files
from lockstep.cluster.launch import MEMORY, launch, let_threads_sleep


def test_no_proxy_stands_between_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "grpc_proxy", "no_proxy"):
        monkeypatch.setenv(name, "http://proxy:3128")
    seen = tmp_path / "environment"
    assert launch(["sh", "-c", f"env >{seen}"], processes=1, threads=1) == 0
    names = [line.partition("=")[0] for line in seen.read_text().splitlines()]
    assert "LOCKSTEP_RANK" in names
    assert not [name for name in names if name.lower().endswith("_proxy")]


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ({}, {"OMP_WAIT_POLICY": "passive"}),
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "active"}),
        ({"GOMP_SPINCOUNT": "9"}, {"GOMP_SPINCOUNT": "9"}),
    ],
)
def test_threads_sleep_unless_a_person_chose(chosen, found, monkeypatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    let_threads_sleep()
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    assert {name: os.environ[name] for name in names if name in os.environ} == found


@pytest.mark.parametrize("chosen", [{}, {"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "a=1"}])
def test_memory_is_kept_unless_a_person_chose(chosen, tmp_path: Path, monkeypatch) -> None:
    for name in (*MEMORY, "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    seen = tmp_path / "environment"
    assert launch(["sh", "-c", f"env >{seen}"], processes=1, threads=1) == 0
    found = dict(line.split("=", 1) for line in seen.read_text().splitlines() if "=" in line)
    told = {k: v for k, v in found.items() if k.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    assert told == (chosen or MEMORY)


def test_the_scratch_of_a_killed_process_is_removed_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dies = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    script = f"from lockstep import files\nwith files.scratch():\n    {dies}"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment)
    (left,) = tmp_path.iterdir()
    with files.scratch() as ours, files.scratch() as another:
        assert sorted(map(str, tmp_path.iterdir())) == sorted([ours, another])
    assert not list(tmp_path.iterdir()), left
