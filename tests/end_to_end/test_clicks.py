"""Clicks of a planted model: both frameworks find what there is to find; report and archive."""

import csv
import json

import pytest

from tests.archive.archived import findings
from tests.end_to_end.checkout import SMALL, Checkout

STUDY = {
    **SMALL,
    "study": "clicks",
    "datasets": {"clicks": {"source": "click_log", "options": {"examples": 24_000, "rows": 100}}},
    "workloads": {
        "dlrm": {
            "dataset": "clicks",
            "global_batch": 128,
            "evaluate_every": 80,
            "model": {"tables": [100] * 26},
        }
    },
    "variants": {
        "torch-eager": {"framework": "torch", "mode": "eager"},
        "jax-jit": {"framework": "jax", "mode": "jit"},
    },
}
LEAST = 0.8  # of the way from 0.5 to the planted model's AUC, after so few examples


@pytest.mark.slow
def test_both_frameworks_learn_what_was_planted(clone: Checkout) -> None:
    clone.snakemake("archive", study=STUDY)
    (manifest,) = (clone.root / "data").rglob("manifest.json")
    best = json.loads(manifest.read_text())["facts"]["best_auc"]
    found = {}
    for variant in STUDY["variants"]:
        folder = clone.results("clicks") / "runs" / "dlrm" / variant / "1x1" / "seed-0"
        with open(folder / "epochs.csv") as rows:
            areas = [float(row["test_auc"]) for row in csv.DictReader(rows)]
        assert len(areas) == 2
        found[variant] = areas[-1]
    assert all(area > 0.5 + LEAST * (best - 0.5) for area in found.values()), (found, best)
    assert abs(found["torch-eager"] - found["jax-jit"]) < 1e-3
    report = json.loads((clone.results("clicks") / "report" / "report.json").read_text())
    assert not report["partial"]
    assert findings(clone.root / "results" / "clicks.crate.zip") == []
