"""What comes after training, when a study is run again: what is compared, and what only told."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockstep.reproduce import deployment_outcome, reproduction_outcome
from lockstep.reproduce.reproduction_outcome import NO, NOT_JUDGED, UNDECIDED, YES
from lockstep.study import Study
from lockstep.study.run import Run
from tests.report.deploy_records import EQUAL, form, record, repetition, route
from tests.report.report_studies import TWO, put_json, write

Change = Callable[[dict[str, Any]], object]
ONNX, INT8, W8A8 = "mnist_cnn/jax onnx", "mnist_cnn/int8 in jax", "mnist_cnn/w8a8"


def told() -> dict[str, Any]:
    model = {"artefact": {"files": {"model.onnx": {"bytes": 9, "sha256": "a"}}, "versions": {}}}
    sums = {"compared": 1000, "equal": 1000, "largest": 0}
    forms = [form("float32", 0.97, 0.96), form("int8", 0.97, 0.95), form("w8a8", 0.97, 0.96)]
    forms[-1]["sums"] = sums
    routes = [route("torch", "eager", repetition()), route("jax", "onnx", repetition(), **model)]
    return record(*routes, compressed=forms)


@pytest.fixture
def both(tmp_path: Path) -> Callable[..., dict[str, reproduction_outcome.Outcome]]:
    """Compare a study with its repetition, in which something came out otherwise."""

    def compare(change: Change, *, summary: Change = lambda told: None) -> dict:
        def first(run: Run, told: dict) -> None:
            told["weights"]["final"] = "f" * 64

        def second(run: Run, told: dict) -> None:
            first(run, told)
            summary(told)

        studies = [write(tmp_path / name, variants=TWO, seeds=2, deploy={}, edit=edit)
                   for name, edit in (("a", first), ("b", second))]  # fmt: skip
        records = [told(), told()]
        change(records[1])
        for study, made in zip(studies, records):
            put_json(study.deployment("mnist_cnn"), made)
        return {f"{o.what} {o.measure}": o for o in deployment_outcome.outcomes(*studies)}

    return compare


def logits(found: dict, name: str = ONNX) -> tuple[str, str]:
    outcome = found[f"{name} {deployment_outcome.LOGITS}"]
    return outcome.outcome, outcome.says


def test_the_same_routes_and_forms_are_a_reproduction_and_times_decide_nothing(both) -> None:
    def slower(made: dict) -> None:
        for each in made["routes"][1]["repetitions"]:
            each["single_stream"]["seconds"]["p50"] *= 9

    found = both(slower)
    assert reproduction_outcome.conclusion([*found.values()]) == YES
    assert "made again, has the same bytes" in logits(found)[1]
    times = found[f"{ONNX} {deployment_outcome.TIME}"]
    assert times.outcome == NOT_JUDGED
    assert times.says.startswith("0.9 ms one by one, 25,000/s in batches of 64 (archive: 0.1 ms")
    assert found[f"{INT8} same bits"].says.endswith("all metrics to the bit")
    assert found[f"{W8A8} integer sums"].says.startswith("1.000000 of 1,000 are equal")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"reason": "its logits are others", "equality": {**EQUAL, "passed": False}}, NO),
        ({"reason": "onnxruntime is not installed here", "equality": None}, UNDECIDED),
    ],
)
def test_a_route_that_is_not_the_same_model_any_more(both, changes: dict, word: str) -> None:
    def change(made: dict) -> None:
        made["routes"][1] |= {k: v for k, v in changes.items() if v is not None}
        made["routes"][1]["repetitions"] = []
        if changes["equality"] is None:
            del made["routes"][1]["equality"]

    found = both(change)
    assert logits(found) == (word, f"{changes['reason']} (archive: the same)")
    assert reproduction_outcome.conclusion([*found.values()]) == word
    assert logits(found, "mnist_cnn/torch eager")[0] == YES


def test_a_form_must_give_the_same_bits_of_the_same_states(both) -> None:
    def change(made: dict) -> None:
        made["compressed"][1]["frameworks"]["jax"]["metrics"][1]["accuracy"] = 0.94

    def other_state(summary: dict) -> None:
        summary["weights"]["final"] = "0" * 64

    def on_another(made: dict) -> None:
        change(made)
        made["host"] = {**made["host"], "cpu": "another CPU"}

    assert both(change)[f"{INT8} same bits"].outcome == NO
    found = both(change, summary=other_state)[f"{INT8} same bits"]
    assert found.outcome == NOT_JUDGED
    assert found.says == "accuracy 0.9550 (archive: 0.9600), of states with other bits"
    found = both(on_another)[f"{INT8} same bits"]
    assert found.outcome == NOT_JUDGED and found.differs == ["CPU: a CPU / another CPU"]


def test_integer_sums_depend_on_no_machine(both) -> None:
    found = both(lambda made: made["compressed"][2]["sums"].update(equal=999))
    assert found[f"{W8A8} integer sums"].outcome == NO


def test_a_form_that_has_no_scale_has_none_again(both) -> None:
    def change(made: dict) -> None:
        made["compressed"][1] = {**copy.deepcopy(made["compressed"][1]), "reason": "no scale"}

    found = both(change)[f"{INT8} same bits"]
    assert (found.outcome, found.says) == (UNDECIDED, "no scale (archive: evaluated)")


def test_what_is_not_made_again_or_not_sound(both, tmp_path: Path) -> None:
    assert logits(both(lambda made: made.clear()), "deployment of mnist_cnn")[0] == UNDECIDED
    archived, again = (Study.at(tmp_path / name / "planted") for name in "ab")
    again.deployment("mnist_cnn").unlink()
    (found,) = deployment_outcome.outcomes(archived, again)
    assert (found.outcome, found.says) == (NO, "the repetition has no record of it")
    assert not [*deployment_outcome.outcomes(again, archived)]
