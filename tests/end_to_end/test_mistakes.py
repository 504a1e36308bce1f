"""What a person gets wrong is said in one line, and nothing half-written is trusted."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, small_disk, staged, wait_for
from tests.end_to_end.checkout import Checkout, small


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Checkout:
    """A checkout in which nothing ever gets done."""
    return Checkout.make(tmp_path_factory.mktemp("fresh") / "lockstep", home)


@pytest.mark.parametrize(
    ("study", "says"),
    [
        (small(sead=1), "unknown key 'sead' at the top level; did you mean 'seeds'?"),
        (
            small(workloads__mnist_cnn__optimiser={}),
            "workloads.mnist_cnn: unknown key 'optimiser'; did you mean 'optimizer'?",
        ),
        (small(seeds=3), "seeds is 3; write a list: [3]"),
        (small(threads=None), "threads is empty; write a whole number, such as 2"),
        (small(window_steps=-1), "window_steps is -1; it must be at least 1"),
        (
            small(workloads__mnist_cnn__epochs=0),
            "workloads.mnist_cnn.epochs is 0; it must be greater than 0",
        ),
        (
            small(variants={"jax": None}),
            "variants.jax is empty; write keys with values, at least framework and mode",
        ),
        (
            small(variants__torch={"framework": "torch", "mode": "jit"}),
            "variants.torch.mode is 'jit'; torch has eager and compile",
        ),
        (
            small(workloads={"mnist_cnm": {"dataset": "digits"}}),
            "workloads.mnist_cnm: unknown workload 'mnist_cnm'; did you mean 'mnist_cnn'?",
        ),
        (small(datasets__digits__source="digit"), "did you mean 'digits'?"),
        (
            small(scales=["1x1", "1x5"]),
            "global_batch is 64, which scale 1x5 (world size 5) does not divide",
        ),
        (
            small(datasets__digits={"source": "mnist", "raw": "nowhere"}),
            "datasets.digits.raw is 'nowhere', which is not a folder",
        ),
        (
            small(datasets__digits={"source": "mnist", "raw": "demo/empty"}),
            "datasets.digits.raw is 'demo/empty', which is empty",
        ),
    ],
)
def test_a_mistake_in_the_config_is_one_line_and_status_2(
    fresh: Checkout, study: dict, says: str
) -> None:
    (fresh.root / "demo" / "empty").mkdir(exist_ok=True)
    said = fresh.snakemake(study=study, status=2)
    own = [line for line in said.text.splitlines() if not line.startswith("Using profile")]
    assert len(own) == 1, said.text
    assert own[0].startswith("lockstep: error: ")
    assert says in own[0]
    assert fresh.files() == {}


def test_what_a_rule_alone_is_given_counts_for_its_request(fresh: Checkout) -> None:
    own = ("--set-resources", "train:gpus_as=cards")
    said = fresh.snakemake(*own, study=small(), status=2)
    assert "gpus_as is 'cards' in the profile" in said.text


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "study: [", "study"])
def test_a_file_that_is_no_config_is_refused_without_a_traceback(
    fresh: Checkout, text: str
) -> None:
    (fresh.root / "study.yaml").write_text(text)
    process = fresh.start()
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode
    assert "Traceback" not in said
    assert "Config file " in said


def test_a_damaged_raw_file_is_named_and_leaves_nothing(clone: Checkout) -> None:
    raw = clone.root / "raw"
    shutil.copytree(staged("mnist"), raw)
    damaged = raw / "t10k-images-idx3-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    study = small(datasets__digits={"source": "mnist", "raw": "raw"})
    said = clone.snakemake("datasets", study=study, status=2)
    assert said.text.splitlines()[-1].startswith(
        "lockstep: error: raw/t10k-images-idx3-ubyte.gz: damaged"
    )
    assert "Traceback" not in said.text
    assert "comparable" not in said.text, "nobody asked for a comparison"
    assert not list((clone.root / "data").rglob("*.h5"))
    shutil.copy(staged("mnist") / damaged.name, damaged)
    clone.snakemake("datasets")
    assert len(list((clone.root / "data").rglob("*.h5"))) == 2


def test_an_interrupted_workflow_says_that_the_same_command_goes_on(clone: Checkout) -> None:
    clone.write(small())
    process = clone.start("parity", start_new_session=True)
    wait_for(lambda: list(clone.results().rglob("seed-0.safetensors")))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode
    assert said.splitlines()[-1] == (
        "lockstep: stopped; the same command goes on from where it was"
    )
    assert "lockstep: error" not in said
    assert "Traceback" not in said


# A full disk ----------------------------------------------------------------------------------


@pytest.fixture
def little(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with little room."""
    with small_disk(tmp_path / "little", "1m") as folder:
        yield folder


def test_a_full_disk_while_preprocessing(clone: Checkout, little: Path) -> None:
    study = small(paths__data=str(little / "data"))
    said = clone.snakemake("datasets", study=study, status=2)
    last = said.text.splitlines()[-1]
    assert "no space left on device; free some space and start again" in last
    assert "Traceback" not in said.text
    assert not [path for path in little.rglob("*") if path.is_file()]
    subprocess.run(["mount", "-o", "remount,size=8m", str(little)], check=True)
    clone.snakemake("datasets")
    assert len(list(little.rglob("*.h5"))) == 2


def test_a_full_disk_at_the_start(fresh: Checkout, little: Path) -> None:
    with open(little / "fill", "wb") as stream, contextlib.suppress(OSError):
        stream.write(bytes(2**20))
    said = fresh.snakemake(study=small(paths__results=str(little / "results")), status=2)
    (line,) = said.lines
    assert "o space left on device" in line
    assert "Traceback" not in said.text
