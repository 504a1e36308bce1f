"""What a machine really lacks is said before anything is built, with the remedy."""

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.images.conftest import Tiny

AS_ROOT_OF_A_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "bash", "-c")


def refused(tiny: Tiny, *command: str) -> str:
    """Run a build that must be refused; returns what it said."""
    answer = tiny.machine.run(*command, status=1)
    assert "lockstep: building" not in answer.stderr
    assert "Traceback" not in answer.stderr
    assert tiny.images == tiny.leftovers == []
    return answer.stderr


def test_no_apptainer(tiny: Tiny) -> None:
    said = refused(tiny, "env", "PATH=/nowhere", *tiny.ensure())
    assert "apptainer: not installed, or not on PATH; load its module" in said


def test_no_user_namespaces(tiny: Tiny) -> None:
    none = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
    said = refused(tiny, *AS_ROOT_OF_A_NAMESPACE, none, "bash", *tiny.ensure())
    assert "user namespaces: refused" in said
    assert "sysctl user.max_user_namespaces" in said


def test_no_space_is_said_with_the_number_needed(tiny: Tiny) -> None:
    small = f'mount -t tmpfs -o size=100m small {tiny.folder}/build && exec "$@"'
    said = refused(tiny, *AS_ROOT_OF_A_NAMESPACE, small, "bash", *tiny.ensure())
    assert "0.1 GiB free, but building the image base needs 2.0 GiB" in said
    assert "images.build_folder" in said


@pytest.fixture
def small_disk(tiny: Tiny) -> Iterator[list[str]]:
    """A build that needs more than thought, on a file system with what it was thought to need."""
    if os.getuid() != 0:
        pytest.skip("to mount a small file system takes root")
    folder = tiny.folder / "build"
    command = tiny.ensure("fallocate --length 4G /opt/more-than-thought")
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2100m,mode=777", "small", folder], check=True
    )
    yield command
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_fills_during_a_build_is_said(tiny: Tiny, small_disk: list[str]) -> None:
    answer = tiny.machine.run(*small_disk, status=1)
    assert "the disk is full; free some, or set images.build_folder" in answer.stderr
    assert tiny.images == tiny.leftovers == []
