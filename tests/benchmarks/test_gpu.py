"""`python -m benchmarks gpu`: without a GPU, without most packages, and when things fail."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import device, inputs, session
from benchmarks.gpu.child import Child, Ended, Failed
from benchmarks.gpu.command import PARTS
from benchmarks.gpu.results import Results
from benchmarks.row import times
from tests.conftest import PATIENCE, ROOT, environment

ONLY = """numpy pandas scipy matplotlib seaborn h5py safetensors PyYAML Jinja2 pillow psutil
nvidia-ml-py torch torchvision jax flax optax tensorboard"""
HERE = Path(__file__).parent


def gpu(*arguments: object, **more: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "benchmarks", "gpu", *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**environment(), "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": "workflow", **more},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], Path]:
    """All of it at tiny sizes, in a Python that has nothing but what the command may import."""
    folder = tmp_path_factory.mktemp("gpu")
    done = gpu(
        *("--out", folder / "out", "--minutes", PATIENCE / 60),
        PYTHONPATH=os.pathsep.join(["workflow", str(HERE / "only_these")]),
        LOCKSTEP_ONLY=ONLY,
        LOCKSTEP_SEEN=str(folder / "seen"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return rows_of(folder / "out"), folder


@pytest.mark.slow
def test_every_part_has_figures_of_both_frameworks(whole: Any) -> None:
    rows, folder = whole
    failed = [
        row
        for row in rows
        if re.search(r"mistake|\w+Error: (?!No module named 'pynvml)", row["note"])
    ]
    assert not failed, (folder / "out" / "log.txt").read_text()[-5000:]
    for part in PARTS.keys() - {"facts"}:
        what = " ".join(row["what"] for row in rows if row["part"] == part and "median" in row)
        assert "torch" in what and "jax" in what, part
    assert rows[-1]["what"] == "finished"


@pytest.mark.slow
def test_a_machine_without_a_gpu_is_named_in_every_row(whole: Any) -> None:
    rows, folder = whole
    assert any(row["what"] == "no GPU" for row in rows)
    figures = [row for row in rows if "median" in row]
    assert figures and all("CPU" in row["device"] for row in figures)
    assert not any(row["limit"] for row in figures if row["unit"] in ("s", "images/s"))
    table = (folder / "out" / "table.md").read_text()
    assert all(row["what"] in table for row in rows)


@pytest.mark.slow
def test_the_small_preset_is_proven_in_every_precision(whole: Any) -> None:
    rows = {row["what"]: row for row in whole[0] if row["part"] == "parity"}
    assert all(row["met"] for row in rows.values()), rows
    for precision in ("float64", "float32", "tf32", "bfloat16"):
        assert any(precision in what for what in rows)
    assert rows["mnist_cnn: bfloat16: jax : torch: logits"]["median"] > 0


@pytest.mark.slow
def test_a_second_start_finds_the_compiled_programs(whole: Any) -> None:
    rows = {row["what"] for row in whole[0]}
    name = "jax-jit, 2 steps per dispatch: trace and compile"
    assert {f"{name}, {cache} cache" for cache in ("cold", "warm")} <= rows


@pytest.mark.slow
def test_training_compiles_nothing_once_it_goes(whole: Any) -> None:
    rows = [row for row in whole[0] if "programs compiled meanwhile" in row["what"]]
    assert len(rows) == 4
    assert all(row["median"] == 0 for row in rows)


@pytest.mark.slow
def test_no_process_has_two_frameworks_and_the_command_none(whole: Any) -> None:
    seen: dict[str, set[str]] = {}
    for line in (whole[1] / "seen").read_text().splitlines():
        process, framework = line.split()
        seen.setdefault(process, set()).add(framework)
    assert {frozenset(names) for names in seen.values()} == {
        frozenset(["torch"]),
        frozenset(["jax"]),
    }


@pytest.mark.slow
def test_a_missing_framework_is_a_row_and_the_other_goes_on(tmp_path: Path) -> None:
    done = gpu(
        *("--out", tmp_path / "out", "--parts", "cifar10"),
        PYTHONPATH=os.pathsep.join(["workflow", str(HERE / "only_these")]),
        LOCKSTEP_ONLY=" ".join(set(ONLY.split()) - {"torch", "torchvision"}),
        LOCKSTEP_SEEN=str(tmp_path / "seen"),
    )
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path / "out")
    (torch,) = [row for row in rows if row["what"] == "torch"]
    assert "cannot be measured: ModuleNotFoundError" in torch["note"] and "'torch'" in torch["note"]
    figures = [row["what"] for row in rows if "median" in row]
    assert figures == ["jax-jit: an epoch's training"]


@pytest.mark.slow
def test_what_did_not_fit_into_the_time_is_named(tmp_path: Path) -> None:
    done = gpu("--out", tmp_path, "--minutes", 0.01, "--quick", "--parts", "parity", "resnet50")
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path)
    for part in ("parity", "resnet50"):
        notes = [row["note"] for row in rows if row["part"] == part]
        assert notes and all("no time" in note or "not measured" in note for note in notes)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "--out"),
        (["--out", "{}", "--minutes", "0"], "minutes"),
        (["--out", "{}", "--parts", "mnits"], "mnits"),
        (["--out", "{}", "--data", "{}/nowhere"], "no such folder"),
        (["--out", "{}/file/out"], "file/out"),
        (["--out", "{}/before"], "holds results already"),
    ],
)
def test_a_mistake_gets_a_line(arguments: list[str], named: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "results.jsonl").touch()
    done = gpu(*(text.format(tmp_path) for text in arguments))
    assert done.returncode == 2
    assert named in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


# Children ----------------------------------------------------------------------------------------


@pytest.fixture
def child(tmp_path: Path) -> Any:
    with_log = Child(tmp_path / "log.txt", {})
    yield with_log
    with_log.close()


def test_a_request_that_fails_has_its_reason_and_may_be_followed_by_others(child: Child) -> None:
    with pytest.raises(Failed, match="RuntimeError: no trial is open") as found:
        child.ask("memory", PATIENCE)
    assert not isinstance(found.value, Ended)
    with pytest.raises(Failed, match="no trial"):
        child.ask("epoch", PATIENCE, on_device=False)


def test_a_child_that_dies_says_how(child: Child) -> None:
    child.process.kill()
    with pytest.raises(Ended, match="by signal 9"):
        child.ask("memory", PATIENCE)


def test_a_child_that_takes_too_long_is_ended(child: Child) -> None:
    with pytest.raises(Ended, match="no answer within 0 s"):
        child.ask("device", 0.0, framework="jax")
    assert child.process.poll() is not None


def test_out_of_memory_is_named_alike_in_both_frameworks() -> None:
    from benchmarks.gpu import worker

    class OutOfMemoryError(RuntimeError):
        pass

    assert worker._in_a_line(OutOfMemoryError("CUDA out of memory. Tried to …")) == "out of memory"
    text = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes"
    assert worker._in_a_line(RuntimeError(text)) == "out of memory"
    assert worker._in_a_line(ValueError("a\nb")) == "ValueError: a"


# Facts, datasets, results ------------------------------------------------------------------------


def test_the_peak_of_an_unknown_device_or_of_a_slice_is_not_guessed() -> None:
    assert device.peak("NVIDIA H200", "bfloat16") == device.peak(
        "NVIDIA H100 80GB HBM3", "bfloat16"
    )
    assert device.peak("NVIDIA H100 PCIe", "bfloat16") < device.peak("NVIDIA H200", "bfloat16")
    assert device.peak("NVIDIA L4", "tf32") < device.peak("NVIDIA L40S", "tf32")
    assert device.peak("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "bfloat16") is None
    assert device.peak("Quadro K2200", "bfloat16") is None


def test_others_on_the_gpu_are_named() -> None:
    assert device.others({"nvml": "absent"}) is None
    assert device.others({"processes": [], "memory_used": 400 << 20, "busy_percent": 0}) is None
    assert "2 other" in str(device.others({"processes": [{"pid": 1}, {"pid": 2}]}))
    assert "in use" in str(device.others({"processes": [], "memory_used": 9 << 30}))


def test_the_first_visible_gpu_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-abc,1")
    assert device.chosen() == {"CUDA_VISIBLE_DEVICES": "GPU-abc"}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert device.chosen()["CUDA_VISIBLE_DEVICES"] == "0"


def test_staged_images_are_read_from_an_archive(tmp_path: Path) -> None:
    import tarfile

    from benchmarks import photographs
    from lockstep.datasets.reader import Reader

    photographs.folder(tmp_path / "raw", 6, (40, 30))
    (tmp_path / "cifar10").mkdir()
    with tarfile.open(tmp_path / "cifar10" / "images.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "raw", "CIFAR-10")
    sizes = {"shape": (32, 32, 3), "examples": 4, "tests": 4}
    what = inputs.make(tmp_path / "made", staged=tmp_path / "cifar10", **sizes)
    assert "staged" in what
    reader = Reader(tmp_path / "made" / "manifest.json", "train")
    assert (reader.examples, reader.arrays["image"].shape) == (6, (32, 32, 3))


def test_results_are_whole_after_each_row(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.note("scan", "batch 8", "out | of memory", "some GPU")
    assert "out / of memory" in (tmp_path / "table.md").read_text()
    odd = {"a": np.int64(1), "b": [np.inf, 0.5]}
    results.figure("scan", times("a step", "s", np.array([1.0, 2.0])), "some GPU", facts=odd)
    first, second = rows_of(tmp_path)
    assert first["note"] == "out | of memory"
    assert second["median"] == 1.5 and second["facts"] == {"a": "1", "b": ["inf", 0.5]}
    assert (tmp_path / "table.md").read_text().count("\n| ") == 3


def test_turns_drop_what_fails_and_go_on(tmp_path: Path) -> None:
    class Told:
        def __init__(self, failing: bool) -> None:
            self.failing = failing

        def ask(self, request: str, seconds: float) -> float:
            if self.failing:
                raise Failed("out of memory")
            return 1.0

    it = session.Session(
        results=Results(tmp_path),
        scratch=tmp_path,
        log=tmp_path / "log",
        quick=False,
        data=None,
        environment={},
        deadline=session.Deadline(time.monotonic() + PATIENCE),
        devices={"torch": "a", "jax": "b"},
    )
    trials: Any = {
        name: session.Trial(name, Told(name == "jax-jit"), "a", "torch")  # type: ignore[arg-type]
        for name in ("torch-eager", "jax-jit")
    }
    assert it.turns("scan", "batch 8", trials, 4, "windows") == {"torch-eager": [1.0] * 4}
    (row,) = rows_of(tmp_path)
    assert row["what"] == "jax-jit: batch 8" and "out of memory" in row["note"]
