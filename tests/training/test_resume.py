"""A run that is killed and started again ends as if nothing had happened, to the bit.

Real processes, real signals. The undisturbed run of the same study is what is compared with.
"""

import json
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lockstep import files
from lockstep.study import Study
from lockstep.training import attempts
from lockstep.training import block as blocks
from lockstep.training.checkpoint import KEPT
from lockstep.workloads import weights
from tests.conftest import (
    DIGITS,
    PATIENCE,
    checkpoints,
    kill,
    slowly,
    start,
    stop,
    summary,
    train,
    wait_for,
)

FRAMEWORKS = {"torch-eager": "torch", "jax-jit": "jax"}


def long_study(study_of: Callable[..., Study], name: str, **changes: object) -> Study:
    """Some seconds of training, with a checkpoint after every window."""
    settings = {"scales": ["1x1", "1x2"], "checkpoints": {"steps": 5}} | changes
    return study_of(name, workloads={"mnist_cnn": {"epochs": 12}}, **settings)


def losses(study: Study, block: str) -> np.ndarray:
    with np.load(study.root / "runs" / block / "steps.npz") as steps:
        return steps["loss"]


def final(study: Study, block: str) -> dict[str, np.ndarray]:
    return weights.load(study.root / "runs" / block / "final.safetensors")


def ended(study: Study, block: str) -> tuple[list[float], str, str]:
    return (
        losses(study, block).tolist(),
        weights.digest(final(study, block)),
        summary(study, block)["batches"],
    )


@pytest.fixture(scope="module")
def known() -> dict[str, tuple]:
    """How undisturbed runs have ended, by block: each is trained once."""
    return {}


@pytest.fixture
def assert_undisturbed(study_of: Callable[..., Study], known: dict) -> Callable[[Study, str], None]:
    """Compare a run with the same one that nothing happened to."""

    def check(study: Study, block: str) -> None:
        if block not in known:
            undisturbed = long_study(study_of, "undisturbed")
            train(undisturbed, block)
            known[block] = ended(undisturbed, block)
        assert ended(study, block) == known[block]

    return check


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["1x1", "1x2"])
@pytest.mark.parametrize("variant", FRAMEWORKS)
def test_sigkill_at_random_moments(
    study_of, assert_undisturbed, tmp_path: Path, variant: str, scale: str
) -> None:
    block = f"mnist_cnn/{variant}/{scale}/seed-0"
    killed = long_study(study_of, "killed")
    moment = random.Random(f"{variant} {scale}")
    kills = 0
    for _ in range(2 if block == "mnist_cnn/torch-eager/1x1/seed-0" else 1):
        before = checkpoints(killed.root, block)[-1:]
        process = start(killed, block, env=slowly(tmp_path, "/step-", 0.1))
        wait_for(
            lambda before=before: checkpoints(killed.root, block)[-1:] not in ([], before), process
        )
        time.sleep(moment.uniform(0, 0.4))
        kills += process.poll() is None
        kill(process) if process.poll() is None else process.communicate()
    assert kills, "no kill landed: the runs are too short"
    train(killed, block)
    assert summary(killed, block)["attempts"] > 1
    made = summary(killed, block)["contract"]["host"]["job"]["attempts"]
    assert [attempt["reason"] for attempt in made[-2:]] == [attempts.SILENT, None]
    assert_undisturbed(killed, block)
    assert not checkpoints(killed.root, block), "a finished run keeps its final state only"


@pytest.mark.parametrize(
    ("variant", "scale", "number"),
    [
        ("torch-eager", "1x1", signal.SIGTERM),
        ("torch-eager", "1x2", signal.SIGUSR1),
        ("jax-jit", "1x1", signal.SIGUSR1),
        ("jax-jit", "1x2", signal.SIGTERM),  # JAX has a use of its own for it between processes
    ],
)
def test_a_signal_saves_in_the_middle_of_an_epoch(
    study_of, assert_undisturbed, variant: str, scale: str, number
) -> None:
    block = f"mnist_cnn/{variant}/{scale}/seed-0"
    # No checkpoint but the one that the signal asks for.
    stopped = long_study(study_of, "stopped", checkpoints={"seconds": 1000.0})
    log = stopped.root / "runs" / block / "log.txt"

    def epochs() -> int:
        return log.read_text().count(": epoch ") if log.is_file() else 0

    for stops in range(1, 5):  # it may come just at an epoch's end
        process, before = start(stopped, block), epochs()
        wait_for(lambda before=before: epochs() > before + 1, process)
        process.send_signal(number)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 75, said
        assert number.name in said
        *before_it, saved = checkpoints(stopped.root, block)
        assert len(before_it) == min(stops, KEPT) - 1
        if json.loads((saved.parent / "progress.json").read_text())["step"] % 23:
            break
    else:
        pytest.fail("always at an epoch's end")
    train(stopped, block)
    assert_undisturbed(stopped, block)


def test_a_time_budget_stops_at_a_checkpoint(study_of) -> None:
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    study = long_study(study_of, "budget", checkpoints={"seconds": 1000.0})
    saved = stop(study, block)
    seconds = json.loads((saved / "progress.json").read_text())["seconds"]
    assert seconds["checkpoint"] > 0
    train(study, block)
    found = summary(study, block)
    assert (found["status"], found["attempts"], found["resumed_from"]) == ("finished", 2, None)
    made = found["contract"]["host"]["job"]["attempts"]
    assert [attempt["reason"] for attempt in made[-2:]] == ["interrupted", None]
    assert found["seconds"]["checkpoint"] >= seconds["checkpoint"]


@pytest.mark.parametrize(
    ("first", "second", "scale"), [("torch", "jax", "1x1"), ("jax", "torch", "1x2")]
)
def test_a_run_begun_in_one_framework_goes_on_in_the_other(
    study_of, first: str, second: str, scale: str
) -> None:
    """Also at another world size, where sums are in another order."""
    names = {framework: variant for variant, framework in FRAMEWORKS.items()}
    variants = {
        "torch-eager": {"framework": "torch", "mode": "eager", "precision": "float64"},
        "jax-jit": {
            "framework": "jax",
            "mode": "jit",
            "convolution": "im2col",
            "precision": "float64",
        },
    }
    study = long_study(study_of, "crossing", variants=variants)
    begun = f"mnist_cnn/{names[first]}/1x1/seed-0"
    continued = f"mnist_cnn/{names[second]}/{scale}/seed-0"
    saved = stop(study, begun)
    step = json.loads((saved / "progress.json").read_text())["step"]
    assert 0 < step < 12 * 23
    train(study, continued, "--resume-from", saved)
    assert summary(study, continued)["resumed_from"]["step"] == step
    train(study, begun)  # the same run, in one framework from end to end
    np.testing.assert_allclose(losses(study, continued), losses(study, begun), rtol=1e-11)
    ends = final(study, continued), final(study, begun)
    for name in ends[0]:
        scale = np.linalg.norm(ends[1][name])
        assert np.linalg.norm(ends[0][name] - ends[1][name]) <= 1e-11 * scale
    assert summary(study, continued)["batches"] == summary(study, begun)["batches"]


def test_a_checkpoint_of_another_configuration_is_refused(study_of) -> None:
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    one = long_study(study_of, "one")
    saved = stop(one, block)
    other = study_of(
        "other", workloads={"mnist_cnn": {"epochs": 12, "optimizer": {"learning_rate": 0.02}}}
    )
    done = train(other, block, "--resume-from", saved, check=False)
    assert done.returncode == 2
    assert "belongs to another configuration" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_checkpoint_belongs_to_an_order_of_examples(study_of) -> None:
    variants = DIGITS["variants"] | {
        f"{name}-native": {**entry, "input": "native"} for name, entry in DIGITS["variants"].items()
    }
    study = study_of(variants=variants)
    orders = {run.variant: blocks.specify(study, run, None, {}).trajectory for run in study.runs}
    assert orders["torch-eager"] == orders["jax-jit"]
    assert len(set(orders.values())) == 3  # each framework's own loader has another


def test_what_another_configuration_left_is_not_mixed_in(study_of) -> None:
    name = "mnist_cnn/torch-eager/1x1/seed-0"
    study = long_study(study_of, "there-and-back")
    stop(study, name)
    folder = study.root / "runs" / name
    # As if a run of another configuration had been interrupted since, too.
    files.write_json(folder / "run.json", files.read_json(folder / "run.json") | {"identity": "x"})
    (folder / "log.txt").write_text("of another configuration\n")
    train(study, name)
    assert summary(study, name)["attempts"] == 2
    assert "of another configuration" not in (folder / "log.txt").read_text()


def test_a_changed_configuration_starts_afresh(study_of) -> None:
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    one = long_study(study_of, "same")
    stop(one, block)
    other = study_of(
        "same", workloads={"mnist_cnn": {"epochs": 1, "optimizer": {"learning_rate": 0.02}}}
    )
    train(other, block)
    assert summary(other, block)["attempts"] == 1
    assert summary(other, block)["steps"] == 23


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    study_of, assert_undisturbed, tmp_path: Path
) -> None:
    block = "mnist_cnn/jax-jit/1x1/seed-0"
    damaged = long_study(study_of, "damaged")
    process = start(damaged, block, env=slowly(tmp_path, "/step-", 0.1))
    wait_for(lambda: len(checkpoints(damaged.root, block)) >= 2, process)
    kill(process)
    newest = checkpoints(damaged.root, block)[-1].parent / "state.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)
    done = train(damaged, block)
    assert "state.safetensors: damaged" in done.stderr
    assert_undisturbed(damaged, block)


def test_a_second_trainer_waits_and_takes_over_the_result(study_of) -> None:
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    study = long_study(study_of, "twice")
    first = start(study, block)
    wait_for(lambda: (study.root / "runs" / block / "run.json").is_file(), first)
    second = train(study, block)
    _, said = first.communicate(timeout=PATIENCE)
    assert first.returncode == 0, said
    assert "is being trained by another process, waiting" in second.stderr
    assert "has finished before" in second.stderr
    assert summary(study, block)["attempts"] == 1


def test_runs_of_two_studies_are_not_timed_at_once(
    study_of, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # where the machine's lock is: it is ours alone
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    alone = {"blocks": {**DIGITS["blocks"], "share_nodes": False}}
    one, other = long_study(study_of, "one", **alone), study_of("other", **alone)
    first = start(one, block)
    wait_for(lambda: checkpoints(one.root, block), first)
    waits = f"lockstep: study other: study one in {one.root} (process {first.pid}) trains on this"
    interrupted = start(other, block)
    assert next(line for line in interrupted.stderr if "waiting" in line).startswith(waits)
    interrupted.send_signal(signal.SIGINT)
    _, said = interrupted.communicate(timeout=PATIENCE)
    assert (interrupted.returncode, said) == (130, "")
    second = train(other, block)
    assert waits in second.stderr
    assert first.wait(timeout=PATIENCE) == 0  # the second one ended after it
    first.communicate()


@pytest.mark.parametrize("variant", FRAMEWORKS)
def test_workers_stop_when_their_launcher_dies(study_of, variant: str) -> None:
    """SIGKILL to the launcher alone: what it started saves and ends by itself."""
    block = f"mnist_cnn/{variant}/1x2/seed-0"
    study = long_study(study_of, "orphans", checkpoints={"seconds": 1000.0})
    process = start(study, block)
    log = study.root / "runs" / block / "log.txt"
    wait_for(lambda: log.is_file() and "epoch 1" in log.read_text(), process)
    process.kill()
    process.wait()
    wait_for(lambda: "stopped at step" in log.read_text())
    assert len(checkpoints(study.root, block)) == 1


def test_a_finished_run_is_skipped_and_a_repeated_one_is_not(study_of) -> None:
    block = "mnist_cnn/torch-eager/1x1/seed-0"
    study = study_of()
    train(study, block)
    stamp = (study.root / "runs" / block / "summary.json").stat().st_mtime_ns
    shutil.rmtree(study.root / "blocks")
    # As if a kill had come between the summary and the clean-up.
    left = study.root / "checkpoints" / block / "0123" / "step-000000005"
    left.mkdir(parents=True)
    train(study, block)
    assert (study.root / "runs" / block / "summary.json").stat().st_mtime_ns == stamp
    assert not left.exists()
    study.repeat(["train"], "again")
    study.write()
    train(study, block)
    assert (study.root / "runs" / block / "summary.json").stat().st_mtime_ns != stamp
