"""What a change reruns: all that depends on it and nothing else."""

import json
from collections.abc import Callable

import pytest

from tests.end_to_end.checkout import BLOCKS, CONFIG, Checkout, losses, small
from tests.end_to_end.conftest import Finished

REPORT = "Make the report of study small"
COMPARE = "Compare the traces of mnist_cnn"
TORCH, JAX = (f"Train mnist_cnn/{name}/1x1/seed-0" for name in ("torch-eager", "jax-jit"))
TRACE_TORCH, TRACE_JAX = (
    f"Trace mnist_cnn as {name} for parity" for name in ("torch-eager", "jax-jit")
)
PACKAGE = "workflow/lockstep"


@pytest.fixture(scope="module")
def still(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy of the finished study in which tests only ask what would be done."""
    return finished.checkout.duplicate(tmp_path_factory.mktemp("still") / "lockstep")


@pytest.fixture
def restored(still: Checkout) -> Checkout:
    """The same, with the code as it was after the test."""
    kept = {path: path.read_bytes() for path in (still.root / PACKAGE).rglob("*.py")}
    yield still
    for path, content in kept.items():
        if path.read_bytes() != content:
            path.write_bytes(content)


# What reruns nothing --------------------------------------------------------------------------


def comment_in_the_config(checkout: Checkout) -> None:
    path = checkout.root / CONFIG
    path.write_text("# a remark\n" + path.read_text() + "\n# another\n")


def touched_manifests(checkout: Checkout) -> None:
    for path in (checkout.root / "data").rglob("*"):
        path.touch()


def touched_weights_and_verdicts(checkout: Checkout) -> None:
    for part in ("weights", "parity", "study.json"):
        for path in (checkout.results() / part, *(checkout.results() / part).rglob("*")):
            path.touch()


def comment_in_the_code(checkout: Checkout) -> None:
    engine = checkout.root / PACKAGE / "engines" / "torch_engine.py"
    engine.write_text("# a remark\n" + engine.read_text())
    checkout.edit(f"{PACKAGE}/training/loop.py", "The one loop", "The only loop")


def touched_code(checkout: Checkout) -> None:
    for path in (checkout.root / "workflow").rglob("*"):
        path.touch()


@pytest.mark.parametrize("change", [comment_in_the_config, touched_manifests, comment_in_the_code])
def test_it_changes_nothing(restored: Checkout, change: Callable[[Checkout], None]) -> None:
    restored.write(small())
    change(restored)
    assert restored.planned() == set()


@pytest.mark.parametrize("change", [touched_weights_and_verdicts, touched_code])
def test_it_makes_at_most_the_report_anew(
    restored: Checkout, change: Callable[[Checkout], None]
) -> None:
    restored.write(small())
    change(restored)
    assert restored.planned() <= {REPORT}


# What reruns a part ---------------------------------------------------------------------------

# Blocks are started again whenever parity is proven again; a run that has finished under its
# identity is skipped then, which the tests below show.
PARITY = {TRACE_TORCH, TRACE_JAX, COMPARE, TORCH, JAX}


@pytest.mark.parametrize(
    ("change", "jobs"),
    [
        ({"workloads__mnist_cnn__optimizer__momentum": 0.5}, PARITY),
        ({"parity__steps": 4}, PARITY),
        ({"window_steps": 6}, PARITY),
        ({"variants__jax-jit__steps_per_dispatch": 5}, PARITY),  # all must make as many steps
        ({"report__margin": 0.02}, set()),
        ({"checkpoints__seconds": 5}, set()),
    ],
)
def test_a_changed_config_reruns_what_reads_it(still: Checkout, change: dict, jobs: set) -> None:
    assert still.planned(study=small(**change)) == jobs | {REPORT}


@pytest.mark.parametrize(
    ("path", "old", "new", "jobs"),
    [
        ("engines/torch_engine.py", "SETTLING_STEPS = 2", "SETTLING_STEPS = 3",
         PARITY - {TRACE_JAX}),
        ("workloads/mnist_cnn/flax_model.py", "(0.5,), (0.5,)", "(0.2,), (0.5,)",
         PARITY - {TRACE_TORCH}),
        ("parity/distances.py", "ENVELOPE = 10.0", "ENVELOPE = 9.0", {COMPARE, TORCH, JAX}),
        ("report/time_tables.py", "import ", "import os\nimport ", set()),
    ],
)  # fmt: skip
def test_changed_code_reruns_what_executes_it(
    restored: Checkout, path: str, old: str, new: str, jobs: set
) -> None:
    restored.write(small())
    restored.edit(f"{PACKAGE}/{path}", old, new)
    assert restored.planned() == jobs | {REPORT}


def test_train_by_force_plans_the_runs_and_no_stage_before(still: Checkout) -> None:
    assert still.planned("-R", "train", study=small()) == {TORCH, JAX, REPORT}


# What is really done --------------------------------------------------------------------------


def changed(checkout: Checkout, before: dict[str, int]) -> set[str]:
    """The stages' folders in which something was written."""
    after = checkout.files()
    names = {name for name in after if before.get(name) != after[name]}
    return {name.split("/")[2] if name.startswith("results") else name for name in names}


def summaries(checkout: Checkout) -> dict[str, dict]:
    root = checkout.results() / "runs"
    return {
        str(path.parent.relative_to(root)): json.loads(path.read_text())
        for path in root.rglob("summary.json")
    }


def test_one_more_seed_adds_runs_and_redoes_none(copied: Checkout) -> None:
    before, records = copied.files(), summaries(copied)
    copied.snakemake(study=small(seeds=[0, 1]))
    after = copied.files()
    assert not {
        name
        for name, when in before.items()
        if after.get(name) != when and not name.startswith("results/small/report/")
    } - {"results/small/study.json"}
    assert len(summaries(copied)) == 4
    assert {block: summaries(copied)[block] for block in BLOCKS} == records


def test_another_learning_rate_trains_again_and_preprocesses_nothing(copied: Checkout) -> None:
    before, records = copied.files(), summaries(copied)
    old = {block: losses(copied.results(), block) for block in BLOCKS}
    copied.snakemake(study=small(workloads__mnist_cnn__optimizer__learning_rate=0.02))
    assert changed(copied, before) == {
        *("study.json", "parity", "runs", "blocks", "states", "report")
    }
    for block, record in summaries(copied).items():
        assert record["identity"] != records[block]["identity"]
        assert record["contract"]["recipe"]["optimizer"]["learning_rate"] == 0.02
        assert record["batches"] == records[block]["batches"]
        assert losses(copied.results(), block)[0] == old[block][0]
        assert (losses(copied.results(), block)[1:] != old[block][1:]).all()


def test_train_by_force_trains_again_and_keeps_the_rest(copied: Checkout) -> None:
    before, records = copied.files(), summaries(copied)
    old = {block: losses(copied.results(), block) for block in BLOCKS}
    copied.snakemake("-R", "train")
    assert changed(copied, before) == {*("repetitions.json", "runs", "blocks", "states", "report")}
    for block, record in summaries(copied).items():
        assert record["identity"] != records[block]["identity"]
        assert (losses(copied.results(), block) == old[block]).all()
    assert copied.planned() == set()


def test_a_changed_engine_retrains_its_framework_alone(copied: Checkout) -> None:
    before, records = copied.files(), summaries(copied)
    copied.edit(f"{PACKAGE}/engines/jax_engine.py", "import ", "import os  # noqa\nimport ")
    copied.snakemake("runs")
    again = summaries(copied)
    torch, jax = sorted(BLOCKS, key=lambda block: "jax" in block)
    assert again[torch] == records[torch]
    assert again[jax]["identity"] != records[jax]["identity"]
    touched = {name for name, when in copied.files().items() if before.get(name) != when}
    assert not [name for name in touched if "/runs/" in name and "torch" in name]
    assert not [name for name in touched if "/parity/" in name and "torch" in name]


def test_a_missing_block_is_made_again_without_training(copied: Checkout) -> None:
    """As when a job was killed after its last run: the retry finds it finished."""
    block = min(BLOCKS)
    records = summaries(copied)
    (copied.results() / "blocks" / f"{block}.json").unlink()
    said = copied.snakemake("runs")
    assert f"Train {block}" in said.jobs
    log = (copied.results() / "logs" / "train" / f"{block}.log").read_text()
    assert "has finished before, nothing to do" in log
    assert summaries(copied) == records
