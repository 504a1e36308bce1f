"""The pieces of the stage: equality, percentiles, artefacts, reasons."""

import json
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lockstep import machine
from lockstep.cluster import kernel
from lockstep.deploy import artefact, measure, processes, stage, worker
from lockstep.deploy.equality import compare
from lockstep.deploy.reading import reads
from lockstep.errors import UserError

REFERENCE = np.array([[1.0, -4.0], [2.0, 3.0], [0.5, 0.0]], np.float32)


def test_logits_are_equal_within_rounding_of_the_largest() -> None:
    found = compare("float32", REFERENCE, REFERENCE + np.float32(3e-5))
    assert found.passed and found.scale == 4
    assert not compare("float64", REFERENCE, REFERENCE + np.float32(3e-5)).passed


def test_the_first_example_that_differs_is_named() -> None:
    logits = REFERENCE.copy()
    logits[2] = logits[2, ::-1]
    found = compare("float32", REFERENCE, logits)
    assert (found.first, found.decided_otherwise) == (2, 1)
    assert "1 of 3 answers are others; the first example that differs is 2" in found.why_not


def test_nan_differs_from_everything() -> None:
    logits = REFERENCE.copy()
    logits[1, 0] = np.nan
    found = compare("float32", REFERENCE, logits)
    assert found.first == 1 and json.dumps(found.told(), allow_nan=False)


def test_a_route_is_asked_what_its_model_reads() -> None:
    batch = {name: np.zeros(2) for name in ("image", "label", "weight")}
    assert reads(lambda some: some["image"], batch) == ["image"]
    with pytest.raises(UserError, match="no output called 'logits'"):
        reads(lambda some: {"scores": some["image"]}["logits"], batch)


def test_a_percentile_is_one_of_the_values() -> None:
    values = np.arange(1, 1001)[::-1]
    assert [measure.percentile(values, p) for p in (50, 90, 99, 100)] == [500, 900, 990, 1000]


def test_a_stream_of_queries_is_timed_one_by_one() -> None:
    asked = {"image": np.arange(3)}
    seen: list[int] = []

    def answer(question: dict[str, np.ndarray]) -> np.ndarray:
        seen.append(len(question["image"]))
        time.sleep(0.002)
        return question["image"]

    delay = kernel.RunDelay()
    told = measure.single_stream(answer, asked, 120, delay)
    delay.close()
    assert told["queries"] >= 120 and set(seen) == {1}
    assert 0.002 <= told["seconds"]["p50"] <= told["seconds"]["p99"]
    assert told["cpu_share"] < 0.9 and told["waited_share"] < 0.9  # it slept


def test_throughput_counts_the_examples_of_whole_batches() -> None:
    asked = {"image": np.arange(10)}
    sizes: list[int] = []

    def answer(question: dict[str, np.ndarray]) -> np.ndarray:
        sizes.append(len(question["image"]))
        time.sleep(0.004)
        return question["image"]

    told = measure.throughput(answer, asked, 8)
    assert set(sizes) == {8}
    assert 500 < told["samples_per_second"] < 2000


def test_memory_is_that_of_this_process() -> None:
    assert measure.peak_bytes() > 10 << 20


def python(code: str) -> list[str]:
    return [sys.executable, "-c", f"import os, signal, sys, time\n{code}"]


def test_processes_that_run_at_once_have_cpus_of_their_own(tmp_path: Path) -> None:
    told = [tmp_path / name for name in "ab"]
    write = "open(sys.argv[1], 'w').write(os.environ['LOCKSTEP_CPUS'])\nsys.exit(3)"
    commands = [(path.name, [*python(write), str(path)]) for path in told]
    at_once = min(2, processes.room(1))
    assert processes.run(commands, threads=1, at_once=at_once) == {"a": 3, "b": 3}
    assert len({path.read_text() for path in told}) == at_once


def test_a_process_that_dies_has_its_signal_as_status() -> None:
    dies = python("os.kill(os.getpid(), signal.SIGSEGV)")
    assert processes.run([("one", dies)], threads=1) == {"one": -signal.SIGSEGV}


def test_no_process_is_started_after_ctrl_c(tmp_path: Path) -> None:
    stops = python("os.kill(os.getppid(), signal.SIGINT)\ntime.sleep(60)")
    second = python(f"open({str(tmp_path / 'second')!r}, 'w')")
    with pytest.raises(KeyboardInterrupt):
        processes.run([("first", stops), ("second", second)], threads=1)
    assert not (tmp_path / "second").exists()


def repetition(foreign: float, waited: float = 0.0) -> dict[str, float]:
    return {"timed_seconds": 1.0, "run_delay_seconds": waited, "foreign_cpu_share": foreign}


def test_a_disturbed_repetition_is_found_as_a_runs_windows_are() -> None:
    found = stage.disturbed([repetition(0.0), repetition(0.2), repetition(0.0, 0.5)], threads=1)
    assert found.tolist() == [False, True, True]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """An artefact of one file."""
    (tmp_path / "model.bin").write_bytes(b"graph")
    artefact.describe(tmp_path, inputs=["image"], packages=["numpy"], bound=True)
    return tmp_path


def test_an_artefact_is_served_where_it_was_made(made: Path) -> None:
    artefact.check(made)


def test_an_artefact_of_another_version_is_not_served(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "versions", lambda packages: {"numpy": "0.1"})
    with pytest.raises(UserError, match=r"made with numpy .*, here is 0\.1; make it again"):
        artefact.check(made)
    monkeypatch.setattr(machine, "versions", lambda packages: {})
    with pytest.raises(UserError, match="numpy is not installed here"):
        artefact.check(made)


def test_an_artefact_for_another_cpu_is_not_served(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "instruction_set", lambda: "another")
    with pytest.raises(UserError, match="native code for another CPU"):
        artefact.check(made)


def test_a_damaged_artefact_is_not_served(made: Path) -> None:
    (made / "model.bin").write_bytes(b"grape")
    with pytest.raises(UserError, match=r"model\.bin of the artefact is missing or was changed"):
        artefact.check(made)


def test_what_an_exporter_says_is_the_reason_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    def refuse(task: object) -> None:
        raise NotImplementedError("no translation\nfor aten::special")

    kind = SimpleNamespace(main=refuse)
    monkeypatch.setitem(sys.modules, "lockstep.deploy.refusing", kind)
    told = worker.outcome(SimpleNamespace(kind="refusing"))
    assert told == {"reason": "NotImplementedError: no translation for aten::special"}
    assert "Traceback" in capfd.readouterr().err  # the log has all of it


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def need(task: object) -> None:
        import a_package_that_is_none.inner  # noqa: F401

    monkeypatch.setitem(sys.modules, "lockstep.deploy.needing", SimpleNamespace(main=need))
    told = worker.outcome(SimpleNamespace(kind="needing"))
    assert told == {"reason": "a_package_that_is_none is not installed here"}


def test_a_process_that_left_nothing_behind_has_a_reason(tmp_path: Path) -> None:
    lost = tmp_path / "result.json"
    assert "ended with signal 11; see the log" in processes.result(lost, -signal.SIGSEGV)["reason"]
    assert "longer than deploy.timeout" in processes.result(lost, -signal.SIGALRM)["reason"]
