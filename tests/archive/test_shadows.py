"""No file of an archive's source is run in place of the code that was compared."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lockstep.archive import build, layout, reproduce
from lockstep.errors import UserError
from tests.archive import tamper
from tests.archive.conftest import Archived
from tests.end_to_end.checkout import Checkout

SHADOWS = (
    "source/workflow/lockstep/training/__pycache__/loop.cpython-311.pyc",
    "source/workflow/lockstep/training/loop.cpython-311-x86_64-linux-gnu.so",
    "source/workflow/lockstep/__pycache__/x",
    "source/workflow/numpy.py",
    "source/workflow/lockstep.py",
    "source/workflow/numpy/__init__.py",
    "source/containers/site.pth",
)


@pytest.mark.parametrize("name", SHADOWS)
def test_what_python_would_run_instead_is_no_source(name: str) -> None:
    assert layout.shadows(name, link=False)


@pytest.mark.parametrize(
    "name",
    [
        "source/workflow/lockstep/__init__.py",
        "source/workflow/lockstep/training/loop.py",
        "source/workflow/rules/report.smk",
        "source/workflow/slurm/sbatch",
        "source/benchmarks/__init__.py",
        "source/docs/a.so.md",
    ],
)
def test_what_a_checkout_has_is_source(name: str) -> None:
    assert not layout.shadows(name, link=False)


def test_it_is_found_although_its_hash_fits(file: Path, findings: Callable[[], list[str]]) -> None:
    added = dict.fromkeys(SHADOWS, b"x") | {"source/workflow/torch": b"../docs"}
    tamper.forge(file, lambda contents: contents.update(added), links=["source/workflow/torch"])
    found = findings()
    says = "Python would run it in place of the code that is compared"
    assert [name for name in added if f"{name}: {says}" not in found] == []


def test_a_checkout_that_has_it_is_not_archived(archived: Archived, copied: Checkout) -> None:
    (copied.root / "workflow" / "numpy.py").write_text("")
    with pytest.raises(UserError, match=r"workflow/numpy\.py: Python could run it in place"):
        build.build(archived.study, output=copied.root / "x.zip", root=copied.root)


def test_a_module_in_the_checkout_itself_is_not_run_either() -> None:
    assert reproduce._environment()["PYTHONSAFEPATH"] == "1"
