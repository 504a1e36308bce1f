"""Damage within files whose hashes all fit: a finding that names the file, or one clear line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lockstep.archive import layout, manifest, verify
from lockstep.errors import UserError
from tests.archive import tamper
from tests.archive.conftest import wrong
from tests.archive.tamper import Contents

TOP = "results/small/"
RUN, OTHER = "mnist_cnn/jax-jit/1x1/seed-0", "mnist_cnn/jax-jit/1x1/seed-1"
THIRD = "mnist_cnn/torch-eager/1x1/seed-0"
STEPS = f"{TOP}runs/{RUN}/steps.npz"
TRACE = f"{TOP}parity/mnist_cnn/jax-jit.npz"
Change = Callable[[Contents], None]


def replaced(name: str, content: bytes) -> Change:
    return lambda contents: contents.update({name: content})


def edited(name: str, change: Callable[[dict], object]) -> Change:
    return lambda contents: tamper.edit_json(contents, name, lambda told: change(told) and None)


def rotten(contents: Contents) -> None:
    content = bytearray(contents[TRACE])
    content[len(content) // 2] ^= 1
    contents[TRACE] = bytes(content)


def of_the_future(contents: Contents) -> None:
    """Ask for a version of zip programs that there is not."""
    content = bytearray(contents[STEPS])
    content[content.index(b"PK\1\2") + 6] = 99
    contents[STEPS] = bytes(content)


DAMAGE: dict[str, Change] = {
    "parity/mnist_cnn/jax-jit.npz: not readable (": rotten,
    f"runs/{RUN}/steps.npz: not readable (zip file version 9.9)": of_the_future,
    f"blocks/{RUN}.json: not sound": edited(
        f"{TOP}blocks/{RUN}.json", lambda told: told["runs"].update({RUN: []})
    ),
    f"blocks/{OTHER}.json: not sound": replaced(f"{TOP}blocks/{OTHER}.json", b"[]"),
    "parity/mnist_cnn/passed.json: not sound": replaced(
        f"{TOP}parity/mnist_cnn/passed.json", b"[]"
    ),
    "report/complete.json: not sound": replaced(f"{TOP}report/complete.json", b"[]"),
    f"runs/{OTHER}/windows.csv: not sound": replaced(f"{TOP}runs/{OTHER}/windows.csv", b"\xff,\n"),
    f"runs/{THIRD}/summary.json: not sound": replaced(f"{TOP}runs/{THIRD}/summary.json", b"[]"),
    "source/workflow/lockstep: not sound (SyntaxError": replaced(
        "source/workflow/lockstep/training/loop.py", b"\0"
    ),
}
"""By the finding that it must become."""


def test_each_damaged_record_is_a_finding_whatever_else_is_damaged(file: Path) -> None:
    def damage(contents: Contents) -> None:
        for change in DAMAGE.values():
            change(contents)

    tamper.forge(file, damage, blocks=False)
    found = wrong(verify.verify(file))
    missed = [names for names in DAMAGE if not any(names in problem for problem in found)]
    assert missed == [], found


def without_images(config: dict) -> None:
    del config["images"]


def of_another_framework(config: dict) -> None:
    config["variants"]["jax-jit"]["framework"] = "fortran"


def called_by_a_path(config: dict) -> None:
    config["workloads"]["/x"] = config["workloads"].pop("mnist_cnn")


def code_in_another_folder(config: dict) -> None:
    config["workloads"]["mnist_cnn"]["workload"] = "/x"


def vast(config: dict) -> None:
    config["scales"] = ["1x" + "9" * 5000]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without_images, "not complete at images"),
        (of_another_framework, "variants.jax-jit.framework is 'fortran'"),
        (called_by_a_path, "'/x'"),
        (code_in_another_folder, "'/x' is no name of a workload"),
        (vast, "digits"),
    ],
)
def test_a_config_of_another_shape_is_one_line(
    file: Path, change: Callable[[dict], None], says: str
) -> None:
    tamper.forge(file, lambda contents: tamper.edit_json(contents, f"{TOP}study.json", change))
    with pytest.raises(UserError, match="not the config of a study") as refusal:
        verify.verify(file)
    assert says in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_config_that_is_nested_without_end_is_one_line(file: Path) -> None:
    deep = b'{"study": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    tamper.forge(file, replaced(f"{TOP}study.json", deep))
    with pytest.raises(UserError, match="not the config of a study"):
        verify.verify(file)


@pytest.mark.parametrize(
    "fields",
    [{"missing": [[]]}, {"include": [1]}, {"include": {"data": 1}}, {"source": {}}, {"study": 5}],
)
def test_a_manifest_of_another_shape_is_a_finding(file: Path, fields: dict) -> None:
    contents = tamper.load(file)
    told = json.loads(contents[layout.MANIFEST])
    del told["digest"]
    contents[layout.MANIFEST] = manifest.render({**told, **fields})
    tamper.store(file, contents)
    assert wrong(verify.verify(file)) == ["manifest.json: it has not the fields that it must have"]


def test_a_manifest_that_is_nested_without_end_is_a_finding(file: Path) -> None:
    deep = b'{"schema": "lockstep-archive/1", "missing": ' + b"[" * 1200 + b"]" * 1200 + b"}"
    tamper.replace_member(file, layout.MANIFEST, deep)
    assert [problem.split(":")[0] for problem in wrong(verify.verify(file))] == ["manifest.json"]
