"""What a host lacks is found before anything is built, each with its remedy."""

import errno
import getpass
import os
from pathlib import Path

import pytest

from lockstep.cluster import doctor
from lockstep.errors import UserError
from lockstep.images import host, identity
from lockstep.images.host import Finding
from lockstep.images.mirror import host_mirror

MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /home rw,nosuid shared:2 - nfs4 server:/home rw
31 22 0:27 / /scratch rw,noexec shared:3 - xfs /dev/vdb rw
32 22 0:28 / /tmp rw - tmpfs tmpfs rw
"""


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def script(path: Path, text: str) -> None:
    """Write a program."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_no_apptainer(tools: Path) -> None:
    assert host.apptainer().fails
    with pytest.raises(UserError, match=r"apptainer: not installed.*images\.enabled to false"):
        host.require(host.apptainer())


def test_an_old_apptainer(tools: Path) -> None:
    script(tools / "apptainer", "case $1 in --version) echo apptainer version 1.1.9;; esac")
    finding = host.apptainer()
    assert finding.fails
    assert finding.found.startswith("1.1.9 is too old: its build has no --build-arg")


def test_user_namespaces_refused(tools: Path) -> None:
    script(tools / "unshare", "echo unshare failed: Operation not permitted >&2; exit 1")
    finding = host.user_namespaces()
    assert finding.fails
    assert "Operation not permitted" in finding.found
    assert "sysctl" in finding.remedy


def test_subordinate_ids_are_optional_where_fakeroot_is(tmp_path: Path, tools: Path) -> None:
    missing = host.subordinate_ids(etc=tmp_path)
    assert missing.fails
    assert "usermod --add-subuids" in missing.remedy
    script(tools / "fakeroot", "")
    assert not host.subordinate_ids(etc=tmp_path).fails
    for name in ("subuid", "subgid"):
        (tmp_path / name).write_text(f"{getpass.getuser()}:100000:65536\n")
    for name in ("newuidmap", "newgidmap"):
        script(tools / name, "")
    assert host.subordinate_ids(etc=tmp_path).remedy is None


def test_too_little_space_is_said_with_the_number_needed(tmp_path: Path) -> None:
    finding = host.space(tmp_path / "not" / "there" / "yet", 1 << 60, "building the image torch")
    assert finding.fails
    assert "building the image torch needs 1073741824.0 GiB" in finding.found
    assert host.space(tmp_path, 1, "x").remedy is None


@pytest.mark.parametrize(
    ("folder", "kind", "option"),
    [
        ("/home/x", "nfs4", "nosuid"),
        ("/scratch", "xfs", "noexec"),
        ("/var", "ext4", "rw"),
        ("/tmp", "tmpfs", "rw"),
    ],
)
def test_a_folder_is_on_the_innermost_mount(folder: str, kind: str, option: str) -> None:
    found, options = host.mount_of(Path(folder), MOUNTS)
    assert found == kind
    assert option in options


def test_a_network_file_system_cannot_hold_a_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "mount_of", lambda folder: ("lustre", set()))
    with pytest.raises(UserError, match=r"network file system \(lustre\).*images\.build_folder"):
        host.require(host.build_folder(tmp_path))


def test_a_file_system_without_links_or_permissions_cannot_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host.build_folder(tmp_path).remedy is None
    monkeypatch.setattr(Path, "chmod", lambda path, mode: None)  # as FAT has it
    assert "has no permissions" in host.build_folder(tmp_path).found

    for number, says in (
        (errno.EPERM, "has no symbolic links"),
        (errno.ENOSPC, "cannot be written ([Errno 28] No space left on device)"),
    ):

        def refuse(link: Path, target: Path, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(Path, "symlink_to", refuse)
        finding = host.build_folder(tmp_path)
        assert says in finding.found
        assert finding.fails
    assert list(tmp_path.iterdir()) == []


def test_the_squashfuse_that_apptainer_brings_counts(
    tmp_path: Path, tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.os, "access", lambda path, mode: True)
    monkeypatch.setattr(host, "FUSE", tmp_path)
    script(tools / "apptainer", f"echo LIBEXECDIR={tmp_path}")
    assert host.fuse().found == "squashfuse is not installed"
    brought = tmp_path / "apptainer" / "bin"
    brought.mkdir(parents=True)
    script(brought / "squashfuse_ll", "")
    assert host.fuse().remedy is None


@pytest.mark.parametrize(
    ("version", "cuda", "needed", "fails"),
    [
        ("580.65.06", "cuda13", "580.65.06", False),
        ("570.124.06", "cuda13", "580.65.06", True),
        ("570.124.06", "cuda12", "525.60.13", False),
        ("515.1", "cuda12", "525.60.13", True),
    ],
)
def test_a_driver_too_old_for_the_cuda_generation(
    tools: Path, version: str, cuda: str, needed: str, fails: bool
) -> None:
    script(tools / "nvidia-smi", f"echo {version}")
    finding = host.driver(cuda, needed)
    assert finding.fails == fails
    if fails:
        assert needed in finding.found
        assert ("images.cuda to cuda12" in finding.remedy) == (cuda == "cuda13")


@pytest.mark.parametrize(
    "name_and_text",
    [
        (
            "sources.list",
            "# none\ndeb [arch=amd64 signed-by=/k/debian-archive-keyring.gpg] "
            "http://mirror.example/debian stable main\n",
        ),
        (
            "sources.list.d/x.sources",
            "Types: deb\nURIs: http://mirror.example/debian\nSuites: stable\nComponents: main\n",
        ),
    ],
)
def test_the_mirror_comes_from_apt(tmp_path: Path, name_and_text: tuple[str, str]) -> None:
    name, text = name_and_text
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / name).write_text(text)
    assert host_mirror(tmp_path) == "http://mirror.example/debian"


def test_archives_of_others_are_not_debians(tmp_path: Path) -> None:
    lists = tmp_path / "sources.list.d"
    lists.mkdir()
    debian = "Suites: bookworm bookworm-updates\nComponents: main contrib\n"
    own = "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    (lists / "docker.sources").write_text(
        "Types: deb\nURIs: https://docker.example\nSuites: bookworm\nComponents: stable\n"
    )
    (lists / "a-vendor.sources").write_text(
        f"Types: deb\nURIs: https://vendor.example\n{debian}Signed-By: /etc/apt/keyrings/v.asc\n"
    )
    (lists / "cloud.list").write_text("deb https://cloud.example/apt cloud-sdk-bookworm main\n")
    (tmp_path / "sources.list").write_text(
        "deb http://archive.ubuntu.example/ubuntu noble main universe\n"
        "deb [signed-by=/etc/apt/keyrings/x.gpg] https://x.example stable main\n"
    )
    with pytest.raises(UserError, match="no archive of Debian"):
        host_mirror(tmp_path)
    (lists / "site.sources").write_text(
        f"Types: deb\nEnabled: no\nURIs: http://off.example/debian\n{debian}{own}\n"
        f"# the near one\nTypes: deb deb-src\nURIs: http://near.example/debian\n{debian}{own}"
    )
    assert host_mirror(tmp_path) == "http://near.example/debian"
    with open(tmp_path / "sources.list", "a") as stream:
        stream.write("deb http://first.example/debian trixie main # as installed\n")
    assert host_mirror(tmp_path) == "http://first.example/debian"


def test_a_host_without_apt_is_told_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"images\.debian_mirror, or images\.base"):
        host_mirror(tmp_path)


@pytest.fixture
def healthy(tools: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The images of a study, on a host on which they run but cannot be built."""
    script(tools / "unshare", "exit 0")
    script(tools / "apptainer", "echo --build-arg --mksquashfs-args --fakeroot")
    monkeypatch.setattr(
        host, "space", lambda *_, **__: Finding(subject="space", found="x", remedy="y")
    )
    return {**doctor.DEFAULTS, "cache": str(tools / "cache")}


def test_finished_images_need_nothing_for_a_build(healthy: dict, tmp_path: Path) -> None:
    def failing(frameworks: tuple[str, ...]) -> set[str]:
        found = doctor.findings(healthy, tmp_path / "data", frameworks)
        return {finding.subject for finding in found if finding.fails}

    assert {"subordinate ids", "space", "Debian root"} <= failing(("torch",))
    (tmp_path / "x.sif").touch()
    for name in ("base", "torch"):
        healthy["ready"] = {**healthy["ready"], name: str(tmp_path / "x.sif")}
    assert failing(("torch",)) == set()
    assert failing(("torch", "jax")) != set()
    jax = identity.recipe("jax").folder
    (tmp_path / "bin" / "cache" / jax).mkdir(parents=True)
    (tmp_path / "bin" / "cache" / jax / "manifest.json").touch()
    assert failing(("torch", "jax")) == set()
    (tmp_path / "x.sif").unlink()
    assert failing(("torch",)) == {"images"}


def test_the_doctor_says_one_line_a_finding_and_one_a_fix(
    tools: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script(tools / "unshare", "exit 0")
    assert doctor.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert "FAIL  apptainer: not installed, or not on PATH" in lines
    failures = [k for k, line in enumerate(lines) if line.startswith(("FAIL", "warn"))]
    assert failures
    assert all(lines[k + 1].startswith("      fix: ") for k in failures)
