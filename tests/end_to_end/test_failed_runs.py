"""A run whose loss is not a number has failed: that is its result, and the report shows it."""

import json

from tests.end_to_end.checkout import SMALL, Checkout, small

STUDY = small(
    workloads={
        name: {
            "workload": "mnist_cnn",
            "dataset": "digits",
            "epochs": 1,
            "optimizer": {"learning_rate": rate},
        }
        for name, rate in (("cold", 0.01), ("hot", 1e30))
    },
    blocks={**SMALL["blocks"], "paired": True},
)


def test_a_loss_that_is_not_a_number_fails_its_runs_and_no_others(clone: Checkout) -> None:
    said = clone.snakemake(study=STUDY)
    assert "study small: 2 runs finished, 2 runs failed" in said.text
    root = clone.results()
    for variant in STUDY["variants"]:
        record = json.loads((root / f"runs/hot/{variant}/1x1/seed-0/summary.json").read_text())
        assert record["status"] == "failed"
        assert record["reason"].startswith("the loss is ")
        assert "at step" in record["reason"]
        fine = json.loads((root / f"runs/cold/{variant}/1x1/seed-0/summary.json").read_text())
        assert fine["status"] == "finished"
    report = json.loads((root / "report" / "report.json").read_text())
    assert report["runs"] == {"finished": 2, "failed": 2}
    assert not report["partial"]
    page = (root / "report" / "index.html").read_text()
    assert page.count(record["reason"]) >= 1
    assert "cold at 1x1: jax-jit took" in said.text
    assert "Nothing to be done" in clone.snakemake().text

    # A failed run is not tried again by a retry of its block.
    (root / "blocks/hot/paired/1x1/seed-0.json").unlink()
    clone.snakemake("runs")
    log = (root / "logs/train/hot/paired/1x1/seed-0.log").read_text()
    assert log.count("has finished before, nothing to do") == 2
