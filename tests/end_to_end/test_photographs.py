"""Real photographs: JPEG files in folders, a few hundred steps in both frameworks, the report."""

import json
from pathlib import Path

import numpy as np
import yaml

from tests import pictures
from tests.conftest import ROOT
from tests.end_to_end.checkout import SMALL, Checkout, losses

STEPS, BATCH = 300, 16


def test_jpeg_files_become_a_report(clone: Checkout, tmp_path: Path) -> None:
    raw = pictures.cifar10(tmp_path / "photographs", STEPS * BATCH // 10, 50)
    study = yaml.safe_load((ROOT / "demo" / "cifar10.yaml").read_text())
    study["datasets"]["cifar10"]["raw"] = str(raw)
    study["workloads"]["resnet18_cifar10"] |= {
        "global_batch": BATCH,
        "model": {"blocks": [1, 1], "width": 8},
        "optimizer": {"learning_rate": 0.02},
    }
    study |= {"parity": {"steps": 5, "float32_steps": 3}, "blocks": SMALL["blocks"]}
    clone.snakemake(study=study)

    results = clone.results("cifar10-small")
    (manifest,) = (clone.root / "data" / "datasets").glob("cifar10-*/manifest.json")
    made = json.loads(manifest.read_text())
    assert [made["splits"][split]["examples"] for split in ("train", "test")] == [4800, 500]
    assert len(made["classes"]) == 10
    curves, batches = {}, set()
    for variant in study["variants"]:
        block = f"resnet18_cifar10/{variant}/1x1/seed-0"
        record = json.loads((results / "runs" / block / "summary.json").read_text())
        assert (record["status"], record["steps"]) == ("finished", STEPS)
        batches.add(record["batches"])
        curves[variant] = losses(results, block)
    assert len(batches) == 1, "they have not seen the same bytes"
    for curve in curves.values():
        assert np.mean(curve[-50:]) < np.mean(curve[:50]) - 0.2, "it has learned nothing"
    first = [curve[:5] for curve in curves.values()]
    np.testing.assert_allclose(*first, rtol=1e-3)
    report = json.loads((results / "report" / "report.json").read_text())
    assert not report["partial"]
    (verdict,) = report["verdicts"]
    assert verdict["workload"] == "resnet18_cifar10"
    assert "Parity PASS" in (results / "report" / "index.html").read_text()
