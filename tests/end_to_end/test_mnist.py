"""Real MNIST, from the four files that a person staged to proven parity."""

import json

import h5py

from tests.conftest import staged
from tests.end_to_end.checkout import Checkout, small


def test_staged_mnist_is_preprocessed_and_parity_holds_on_it(clone: Checkout) -> None:
    study = small(
        study="mnist",
        datasets={"mnist": {"source": "mnist", "raw": str(staged("mnist"))}},
        workloads={"mnist_cnn": {"dataset": "mnist"}},
        parity={"steps": 5, "float32_steps": 3},
    )
    said = clone.snakemake("parity", study=study)
    assert "Preprocess mnist" in said.jobs
    assert not [job for job in said.jobs if job.startswith("Download")]
    (shard,) = (clone.root / "data").rglob("train-00000.h5")
    with h5py.File(shard) as opened:
        assert opened["image"].shape == (60_000, 28, 28, 1)
    verdict = json.loads(
        (clone.results("mnist") / "parity" / "mnist_cnn" / "verdict.json").read_text()
    )
    rungs = verdict["comparisons"]["jax-jit"]["rungs"]
    assert verdict["passed"]
    assert max(r["value"] for r in rungs if r["precision"] == "float64") < 1e-12
    assert clone.planned("parity") == set()
