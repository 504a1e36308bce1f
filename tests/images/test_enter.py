"""What gets into an image with a command, and what does not."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest

from lockstep.engines import environment
from lockstep.errors import UserError
from lockstep.images import enter

LEAVE = enter.Pass(
    image="/i.sif",
    identity="1234",
    name="jax",
    writable=("results/demo",),
    readable=("data",),
    caches="results/demo/cache",
)


@pytest.fixture(autouse=True)
def apptainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something called apptainer on PATH."""
    (tmp_path / "apptainer").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))


def mounts(line: list[str]) -> list[str]:
    """Return the mounts of a command line."""
    return [value for option, value in itertools.pairwise(line) if option == "--mount"]


def test_a_pass_survives_the_command_line() -> None:
    assert enter.Pass.read(LEAVE.text()) == LEAVE


def test_the_host_environment_stays_outside_but_for_what_runs_need() -> None:
    host = {
        "PYTHONPATH": "/host/site-packages",
        "LD_LIBRARY_PATH": "/host/cuda",
        "HOME": "/home/x",
        "LOCKSTEP_RANK": "1",
        "SLURM_PROCID": "1",
        "CUDA_VISIBLE_DEVICES": "0,1",
    }
    inside = enter.environment(LEAVE, host, gpu=True)
    assert inside["LOCKSTEP_RANK"] == inside["SLURM_PROCID"] == "1"
    assert inside["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert "/host" not in json.dumps(inside)
    assert inside["HOME"] == "/tmp"
    assert "LD_LIBRARY_PATH" not in inside


def test_caches_lie_in_the_declared_folder() -> None:
    inside = enter.environment(LEAVE, {}, gpu=False)
    folder = str(Path("results/demo/cache").absolute())
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"):
        assert inside[name].startswith(folder)


def test_no_record_names_where_caches_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = enter.environment(LEAVE, {"OMP_NUM_THREADS": "1"}, gpu=False)
    monkeypatch.setattr(environment, "FOUND", inside)
    assert environment.recorded() == {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}


def test_a_record_says_where_memory_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"MALLOC_TRIM_THRESHOLD_": "1", "LD_PRELOAD": "/home/ada/lib/libjemalloc.so.2:b.so"}
    monkeypatch.setattr(environment, "FOUND", found)
    assert environment.recorded() == {**found, "LD_PRELOAD": "libjemalloc.so.2:b.so"}
    inside = enter.environment(LEAVE, found, gpu=False)
    assert inside["MALLOC_TRIM_THRESHOLD_"] == "1"
    assert "LD_PRELOAD" not in inside


def test_jax_is_told_where_there_is_no_gpu() -> None:
    assert enter.environment(LEAVE, {}, gpu=False)["JAX_PLATFORMS"] == "cpu"
    assert "JAX_PLATFORMS" not in enter.environment(LEAVE, {}, gpu=True)


def test_a_gpu_that_is_hidden_from_the_job_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enter, "CONTROL", tmp_path / "nvidiactl")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert not enter.gpus_here()
    enter.CONTROL.touch()
    assert enter.gpus_here()
    for hidden in ("", "-1", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert not enter.gpus_here()


def test_no_mount_or_option_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "i.sif"
    image.touch()
    leave = dataclasses.replace(LEAVE, image=str(image), writable=(str(tmp_path / "results"),))
    kept = ("APPTAINER_TMPDIR", "APPTAINER_CACHEDIR", "APPTAINER_CONFIGDIR")
    dropped = ("MOUNT", "BIND", "BINDPATH", "OVERLAY", "CONTAINLIBS", "FAKEROOT", "NV", "WRITABLE")
    for name in (*kept, *(f"{tool}_{n}" for n in dropped for tool in ("APPTAINER", "SINGULARITY"))):
        monkeypatch.setenv(name, "/x")
    seen = {}
    monkeypatch.setattr(enter, "end_with_parent", lambda: None)
    monkeypatch.setattr(enter.os, "execve", lambda path, line, env: seen.update(env))
    enter.become(leave, [])
    told = {n for n in seen if n.startswith(("APPTAINER_", "SINGULARITY"))}
    assert told == set(kept)


def test_the_driver_is_mounted_only_where_a_gpu_is() -> None:
    for gpu in (False, True):
        line = enter.apptainer_command(LEAVE, [], scratch="/s", gpu=gpu)
        assert ("--nv" in line) == gpu


def test_only_the_study_is_mounted_and_the_package_read_only() -> None:
    line = enter.apptainer_command(LEAVE, ["-c", "pass"], scratch="/s", gpu=False)
    here, package = Path.cwd(), enter.package_folder()
    assert mounts(line) == [
        "type=bind,source=/s,destination=/tmp",
        "type=bind,source=/dev/shm,destination=/dev/shm",
        *sorted(
            [
                f"type=bind,source={here}/data,destination={here}/data,ro",
                f"type=bind,source={here}/results/demo,destination={here}/results/demo",
                f"type=bind,source={package},destination={package},ro",
            ],
            key=lambda mount: mount.split(",")[2],
        ),
    ]
    assert {"--contain", "--cleanenv", "--no-home"} <= set(line)
    assert line[-3:] == [enter.PYTHON, "-c", "pass"]


def test_the_way_to_other_nodes_is_mounted_where_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fabric = tmp_path / "infiniband"
    monkeypatch.setattr(enter, "FABRIC", str(fabric))
    mount = f"type=bind,source={fabric},destination={fabric}"
    assert mount not in mounts(enter.apptainer_command(LEAVE, [], scratch="/s", gpu=True))
    fabric.mkdir()
    assert mount in mounts(enter.apptainer_command(LEAVE, [], scratch="/s", gpu=True))


def test_a_comma_in_a_path_is_no_option() -> None:
    leave = enter.Pass(**{**LEAVE.__dict__, "readable": ("/a,b",)})
    line = enter.apptainer_command(leave, [], scratch="/s", gpu=False)
    assert 'type=bind,source="/a,b",destination="/a,b",ro' in mounts(line)


def test_a_node_without_apptainer_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"apptainer is not on this node.*load its module"):
        enter.apptainer_command(LEAVE, [], scratch="/s", gpu=False)


def test_a_missing_image_says_so() -> None:
    with pytest.raises(UserError, match=r"/i\.sif: no such image"):
        enter.become(LEAVE, [])


def test_a_driver_too_old_for_the_cuda_of_the_image_is_refused(tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.write_text("515.65.01\n")
    enter.check_driver(LEAVE, version)  # which says nothing of CUDA
    with_cuda = enter.Pass(**{**LEAVE.__dict__, "minimum_driver": "525.60.13"})
    enter.check_driver(with_cuda, tmp_path / "none")
    with pytest.raises(UserError, match=r"driver of .* is 515\.65\.01.*needs 525\.60\.13 or later"):
        enter.check_driver(with_cuda, version)
    version.write_text("580.65.06\n")
    enter.check_driver(with_cuda, version)


def test_a_node_inside_has_the_address_at_which_others_reach_it() -> None:
    known = "127.0.0.1 localhost\n127.0.1.1 node1.site node1 # by the installer\n\n10.0.0.2 node2\n"
    assert enter.hosts("node1", "10.0.0.1", known).splitlines() == [
        "127.0.0.1 localhost",
        "10.0.0.1 node1",
        "127.0.1.1 node1.site",
        "10.0.0.2 node2",
    ]


def test_mount_points_below_the_shared_scratch_are_made_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enter, "SCRATCH", str(tmp_path / "tmp"))
    study, scratch = tmp_path / "tmp" / "site" / "study", tmp_path / "scratch"
    study.mkdir(parents=True)
    scratch.mkdir()
    leave = dataclasses.replace(LEAVE, writable=(str(study),), readable=(str(tmp_path / "data"),))
    for _ in range(2):  # another process of the node did the same
        enter.make_mount_points(leave, scratch)
    assert [path.relative_to(scratch) for path in scratch.rglob("*")] == [
        Path("site"),
        Path("site/study"),
    ]
