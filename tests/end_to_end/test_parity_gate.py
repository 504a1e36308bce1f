"""A model that is not the same in both frameworks is named, and is not trained.

Faults that two processes alone show: tests/parity/test_faults_several.py; that the gate stops for
them: tests/parity/test_joint.py.
"""

import json

import pytest

from tests.end_to_end.checkout import Checkout, small

ENGINE = "workflow/lockstep/engines/jax_optimizer.py"
MODEL = "workflow/lockstep/workloads/mnist_cnn/flax_model.py"
SOUND = 'momentum = settings["momentum"] * kept'
BROKEN = 'momentum = settings["momentum"] * 0.9 * kept'
STUDY = small(
    workloads={
        name: {
            "workload": "mnist_cnn",
            "dataset": "digits",
            "epochs": 1,
            "optimizer": {"learning_rate": 0.01, "momentum": momentum},
        }
        for name, momentum in (("heavy", 0.9), ("plain", 0.0))
    }
)


@pytest.fixture
def broken(clone: Checkout) -> Checkout:
    """JAX's momentum is a little smaller, which only one of the two workloads has."""
    clone.edit(ENGINE, SOUND, BROKEN)
    clone.write(STUDY)
    return clone


def test_a_broken_optimizer_stops_its_workload_until_it_is_mended(broken: Checkout) -> None:
    said = broken.snakemake(status=1)
    finding = "heavy: jax-jit is not torch-eager: float64 update: momentum/conv1.kernel differs by"
    assert f"lockstep: parity FAILS: {finding}" in said.text
    assert "Traceback" not in said.text
    runs = broken.results() / "runs"
    assert {path.parts[-5] for path in runs.rglob("summary.json")} == {"plain"}
    assert not (runs / "heavy").exists()

    report = broken.results() / "report"
    numbers = json.loads((report / "report.json").read_text())
    assert numbers["partial"]
    assert numbers["runs"] == {"missing": 2, "finished": 2}
    page = (report / "index.html").read_text()
    assert "This is a partial report" in page
    assert "parity FAILS" in page and "momentum/conv1.kernel" in page
    assert "heavy at 1x1: jax-jit and torch-eager are not comparable: parity FAILS" in said.text
    assert "report: results/small/report/index.html" in said.text

    # Nothing that is there passes for a result.
    assert "Compare the traces of heavy" in broken.planned()

    before = broken.files()
    broken.edit(ENGINE, BROKEN, SOUND)
    mended = broken.snakemake()
    assert "study small: 4 runs finished" in mended.text
    assert not json.loads((report / "report.json").read_text())["partial"]
    after = broken.files()
    summaries = [n for n in before if "/runs/" in n and "torch" in n and n.endswith("summary.json")]
    assert summaries and all(after[name] == before[name] for name in summaries)
    assert broken.planned() == set()

    broken.edit(MODEL, "x = images_bhwc", "x = jnp.roll(images_bhwc, 1, axis=2)")
    again = broken.snakemake("parity", status=1)
    for workload in ("heavy", "plain"):
        assert f"{workload}: jax-jit is not torch-eager: float64 layers: conv1" in again.text
        assert not (broken.results() / "parity" / workload / "passed.json").exists()
