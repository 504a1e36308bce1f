"""What nothing names is not in an archive, and is found where it is."""

from collections.abc import Callable
from pathlib import Path

from lockstep.archive import verify
from tests.archive import tamper
from tests.archive.conftest import make, wrong
from tests.end_to_end.checkout import Checkout

TOP = "results/small/"
UNASKED = "the study's config does not ask for it"
STRANGERS = {
    "data/datasets/stray-000000000000/train-00000.h5": (
        "neither config nor records name stray-000000000000"
    ),
    "data/datasets/digits-000000000000/train-00000.h5": "there is no manifest that describes it",
    "data/images/torch-000000000000/image.sif": (
        "neither config nor records name torch-000000000000"
    ),
    f"{TOP}parity/other/verdict.json": UNASKED,
    f"{TOP}parity/mnist_cnn/zzz.npz": UNASKED,
    f"{TOP}blocks/other/zzz.json": UNASKED,
    f"{TOP}weights/other/seed-9.safetensors": UNASKED,
    f"{TOP}weights/mnist_cnn/seed-9.safetensors": UNASKED,
    f"{TOP}runs/mnist_cnn/jax-jit/1x1/seed-9/run.json": (
        "the study's config does not ask for this run"
    ),
    f"{TOP}report/figures/zz.svg": "the report's page does not show it",
    f"{TOP}report/figures/mnist_cnn.png": "the report's page does not show it",
}
"""By what must be said of them."""


def test_what_nothing_names_is_found(file: Path, findings: Callable[[], list[str]]) -> None:
    added = dict.fromkeys(STRANGERS, b'{"runs": {}}\n')
    tamper.forge(file, lambda contents: contents.update(added))
    found = findings()
    missed = [name for name, why in STRANGERS.items() if f"{name}: {why}" not in found]
    assert missed == [], found


def test_what_the_config_had_once_is_not_archived(copied: Checkout) -> None:
    once = ("parity/mnist_cnn/old.npz", "parity/old/verdict.json", "blocks/mnist_cnn/old.json")
    for name in once:
        path = copied.results() / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
    copied.results("small.crate.zip").unlink()
    make(copied)
    file = copied.results("small.crate.zip")
    assert not {f"{TOP}{name}" for name in once} & {*tamper.load(file)}
    assert wrong(verify.verify(file)) == []
