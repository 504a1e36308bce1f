"""Of a ladder that fails: what is searched for its cause, and what is said if that ends badly."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from lockstep.parity import cause

VARIANTS = {
    "torch-eager": {"framework": "torch"},
    "torch-compile": {"framework": "torch"},
    "jax-jit": {"framework": "jax"},
}
STUDY = Path("study.json")
COMMAND = "`python -m lockstep port study.json --workload w` compares the models"


def verdict(precision: str, rung: str, first: str = "conv1", variant: str = "jax-jit") -> Any:
    """A verdict in which one rung failed."""
    numbers = {"first_value": 1.0, "first_tolerance": 1e-11, "value": 1.0, "tolerance": 1e-11}
    failed = {"precision": precision, "name": rung, "passed": False, "first": first, **numbers}
    comparison = {"passed": False, "rungs": [failed]}
    return {"workload": "w", "reference": "torch-eager", "comparisons": {variant: comparison}}


@pytest.mark.parametrize(
    ("failed", "why"),
    [
        (("float64", "layers"), None),
        (("float32", "forward", "logits"), None),
        (("float64", "step", "buffer/norm.var"), None),
        (("float64", "step", "param/conv1.kernel"), "how they are trained or evaluated differs"),
        (("float64", "gradient"), "its gradient alone differs"),
        (("float64", "loss"), "the loss that is made of them differs"),
        (("float64", "batches"), "what both models are given"),
        (("float64x2", "layers"), "on one device alone"),
        (("bfloat16", "forward"), "float64 and float32"),
        (("float64", "layers", "conv1", "torch-compile"), "both variants are of one"),
    ],
)
def test_where_no_cause_is_looked_for_the_line_says_why(failed: tuple, why: str | None) -> None:
    found = verdict(*failed)
    searched = cause.to_search(found, VARIANTS)
    (line,) = cause.lines(found, VARIANTS, STUDY)
    if why is None:
        assert searched == ["jax-jit"] and line.endswith("allowed 1.0e-11") == (
            failed[:2] not in cause.IN_MODELS
        )
    else:
        assert not searched and "; its cause is not looked for: " in line and why in line
    assert (COMMAND in line) == (failed[:2] in cause.IN_MODELS and "torch-compile" not in failed)


@pytest.mark.parametrize(
    ("code", "seconds", "how"),
    [
        ("import os; os.kill(os.getpid(), 9)", 60, "ended with status -9"),
        ("raise RuntimeError", 60, "ended with status 1"),
        ("import time; time.sleep(60)", 0.2, "took longer than 0.2 s"),
    ],
)
def test_a_search_that_ends_badly_hides_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, seconds: float, how: str
) -> None:
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps(verdict("float64", "layers")))
    monkeypatch.setattr(cause, "SECONDS", seconds)
    found = cause.search(path, [sys.executable, "-c", code])
    (line,) = cause.lines(found, VARIANTS, STUDY)
    assert line.startswith("w: jax-jit is not torch-eager: float64 layers: conv1 differs by 1.0")
    assert f"its cause is not known: the search for it {how}; where both" in line
