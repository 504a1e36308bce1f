"""Where parity fails, the report says what the failing tensor was held to."""

import json
from pathlib import Path

from lockstep.parity import compare
from lockstep.report import learning, load, proof
from lockstep.study import Study
from tests.parity.small import at, edited, written
from tests.report.report_studies import TWO, write


def failing(folder: Path) -> tuple[Study, dict]:
    """A study whose parity fails in step 3, by 2e-5, though step 11 was held to 1e-2 alone."""
    study = write(folder, variants=TWO, seeds=1)
    losses = at(11, 3.0)
    losses[3] = 1 + 2e-5
    spoiled = edited(float32__steps__loss=losses, twin__steps__loss=losses)
    reference = edited(twin__steps__loss=at(10, 1 + 1e-3))
    traces = written(folder, **{"torch-eager": reference, "jax-jit": spoiled})
    verdict = compare.judge("mnist_cnn", traces)
    del verdict["about"]  # these traces are of no variant
    return study, json.loads(json.dumps(verdict))


def told(study: Study, verdict: dict) -> tuple[str, float]:
    """What the report says of the comparison, and in the ladder's row of that rung."""
    study.verdict("mnist_cnn").write_text(json.dumps(verdict))
    records = load.load(study)
    table = learning.parity(records, "mnist_cnn")
    (row,) = [r for r in table.rows if (r["precision"], r["rung"]) == ("float32", "steps")]
    return proof.parity_problem(records, "mnist_cnn", "jax-jit") or "", row["tolerance"]


def test_the_tolerance_is_that_of_the_tensor_that_failed(tmp_path: Path) -> None:
    problem, tolerance = told(*failing(tmp_path))
    assert problem.endswith("step 3 differs by 2.00e-05, allowed 1.0e-05")
    assert tolerance == 1e-5


def test_a_verdict_of_before_is_told_with_what_it_has(tmp_path: Path) -> None:
    study, verdict = failing(tmp_path)
    for rung in verdict["comparisons"]["jax-jit"]["rungs"]:
        del rung["first_tolerance"]
    problem, _ = told(study, verdict)
    assert problem.endswith("step 3 differs by 2.00e-05, allowed 1.0e-02")
