"""What comes after training, when a study is run again: what is compared, and what only told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockstep.reproduce import deployment_outcome, reproduction_outcome
from lockstep.reproduce.deployment_outcome import LOGITS, SUMS, TIME
from lockstep.reproduce.reproduction_outcome import BITS, NO, NOT_JUDGED, UNDECIDED, YES, Outcome
from lockstep.study import Study
from tests.archive.tamper import put
from tests.report.deploy_records import form, record, repetition, route
from tests.report.report_studies import TWO, put_json, write

Change = Callable[[dict[str, Any]], object]
ONNX, INT8, W8A8 = "mnist_cnn/jax onnx", "mnist_cnn/int8 in jax", "mnist_cnn/w8a8"
FILES = {"model.onnx": {"bytes": 9, "sha256": "a"}}


def told() -> dict[str, Any]:
    forms = [form("float32", 0.97, 0.96), form("int8", 0.97, 0.95), form("w8a8", 0.97, 0.96)]
    forms[-1]["sums"] = {"compared": 1000, "equal": 1000, "largest": 0}
    model = {"artefact": {"files": FILES, "versions": {}}}
    routes = [route("torch", "eager", repetition()), route("jax", "onnx", repetition(), **model)]
    return record(*routes, compressed=forms)


def final(summary: dict, state: str = "f") -> None:
    summary["weights"]["final"] = state * 64


@pytest.fixture
def both(tmp_path: Path) -> Callable[..., dict[str, Outcome]]:
    """Compare a study with its repetition, in which something came out otherwise."""

    def compare(*changes: tuple[str, Any], state: str = "f") -> dict[str, Outcome]:
        studies = [write(tmp_path / name, variants=TWO, seeds=2, deploy={},
                         edit=lambda run, summary, state=state: final(summary, state))
                   for name, state in (("a", "f"), ("b", state))]  # fmt: skip
        records = [told(), told()]
        for path, value in changes:
            put(records[1], path, value)
        for study, made in zip(studies, records):
            put_json(study.deployment("mnist_cnn"), made)
        return {f"{o.what} {o.measure}": o for o in deployment_outcome.outcomes(*studies)}

    return compare


def test_the_same_routes_and_forms_are_a_reproduction_and_times_decide_nothing(both) -> None:
    slower = [(f"routes.1.repetitions.{k}.single_stream.seconds.p50", lambda v: v * 9)
              for k in range(len(told()["routes"][1]["repetitions"]))]  # fmt: skip
    found = both(*slower)
    assert reproduction_outcome.conclusion([*found.values()]) == YES
    assert "made again, has the same bytes" in found[f"{ONNX} {LOGITS}"].says
    times = found[f"{ONNX} {TIME}"]
    assert times.outcome == NOT_JUDGED
    assert times.says.startswith("0.9 ms one by one, 25,000/s in batches of 64 (archive: 0.1 ms")
    assert found[f"{INT8} {BITS}"].says.endswith("all metrics to the bit")
    assert found[f"{W8A8} {SUMS}"].says.startswith("1.000000 of 1,000 are equal")


WORSE = [("routes.1.reason", "its logits are others")]
UNMADE = [("routes.1.reason", "no onnxruntime"), ("routes.1.equality", None)]
OTHER_CPU = ("host", lambda host: {**host, "cpu": "Z"})
METRIC = ("compressed.1.frameworks.jax.metrics.1.accuracy", 0.94)
FEWER = ("compressed.2.sums.equal", 999)
UNSCALED = ("compressed.1.reason", "no scale")
MEANS = "accuracy 0.9550 (archive: 0.9600)"
CHANGED = [
    (f"{ONNX} {LOGITS}", WORSE, "f", NO, "its logits are others (archive: the same)"),
    (f"{ONNX} {LOGITS}", UNMADE, "f", UNDECIDED, "no onnxruntime (archive: the same)"),
    (f"{INT8} {BITS}", [METRIC], "f", NO, MEANS),
    (f"{INT8} {BITS}", [METRIC], "0", NOT_JUDGED, f"{MEANS}, of states with other bits"),
    (f"{INT8} {BITS}", [METRIC, OTHER_CPU], "f", NOT_JUDGED, f"{MEANS}CPU: a CPU / Z"),
    (f"{INT8} {BITS}", [UNSCALED], "f", UNDECIDED, "no scale (archive: evaluated)"),
    # Integer sums depend on no machine.
    (f"{W8A8} {SUMS}", [FEWER], "f", NO, "0.999000 of 1,000 are equal (archive: 1.000000)"),
]


@pytest.mark.parametrize(("what", "changes", "state", "word", "says"), CHANGED)
def test_what_came_out_otherwise(both, what, changes, state, word, says) -> None:
    found = both(*changes, state=state)
    assert found[what].outcome == word
    assert "".join([found[what].says, *found[what].differs]) == says
    assert found[f"mnist_cnn/torch eager {LOGITS}"].outcome == YES


def test_what_is_not_made_again_or_not_sound(both, tmp_path: Path) -> None:
    assert both(("routes", None))[f"deployment of mnist_cnn {LOGITS}"].outcome == UNDECIDED
    archived, again = (Study.load(tmp_path / name / "planted") for name in "ab")
    again.deployment("mnist_cnn").unlink()
    (found,) = deployment_outcome.outcomes(archived, again)
    assert (found.outcome, found.says) == (NO, "the repetition has no record of it")
    assert not [*deployment_outcome.outcomes(again, archived)]
