"""What a stage's digest sees: code that it imports, and no comments."""

import importlib
import shutil
import sys
from pathlib import Path

import pytest

from lockstep import code
from lockstep.study import identity
from lockstep.study.identity import framework_modules
from tests import letters
from tests.conftest import PATIENCE


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package that can be edited."""
    copied = tmp_path / "lockstep"
    shutil.copytree(code.PACKAGE, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code, "PACKAGE", copied)
    code._imports.cache_clear()
    code._tree.cache_clear()
    yield copied
    code._imports.cache_clear()
    code._tree.cache_clear()


def digests() -> dict[str, str]:
    code._imports.cache_clear()
    code._tree.cache_clear()
    worker = "lockstep.training.worker"
    return {
        "torch": code.digest(worker, *framework_modules("torch", "mnist_cnn")),
        "jax": code.digest(worker, *framework_modules("jax", "mnist_cnn")),
        "digits": code.digest("lockstep.datasets.prepare", "lockstep.datasets.sources.digits"),
    }


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_a_comment_or_docstring_changes_nothing(package: Path) -> None:
    before = digests()
    engine = package / "engines" / "torch_engine.py"
    engine.write_text("# a comment\n" + engine.read_text().replace('"""Leave', '"""Go away, leave'))
    edit(package / "training" / "loop.py", "The one loop", "The only loop")
    assert digests() == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{**a, "k": b}', '{"k": a, **b}'),
        ("def g(*, a=1, b): return 0", "def g(*, a, b=1): return 0"),
    ],
)
def test_what_is_absent_has_a_place(tmp_path: Path, before: str, after: str) -> None:
    """A key of `**a`, a keyword without a default: None inside a list of a syntax tree."""
    found = set()
    for name, text in (("first", before), ("second", after)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
        (tmp_path / name / "module.py").write_text(f"a = b = {{}}\n{text}\n")
        found.add(code.digest("lockstep.module", package=tmp_path / name))
    assert len(found) == 2


def test_an_edited_engine_changes_only_what_it_trains(package: Path) -> None:
    before = digests()
    edit(package / "engines" / "torch_engine.py", "SETTLING_STEPS = 2", "SETTLING_STEPS = 3")
    after = digests()
    assert after["torch"] != before["torch"]
    assert after["jax"] == before["jax"]
    assert after["digits"] == before["digits"]


def test_an_edited_loop_changes_both_frameworks_and_no_dataset(package: Path) -> None:
    before = digests()
    edit(package / "training" / "loop.py", "warm_up = True", "warm_up = False")
    after = digests()
    assert after["torch"] != before["torch"]
    assert after["jax"] != before["jax"]
    assert after["digits"] == before["digits"]


def test_the_launcher_and_the_report_retrain_nothing(package: Path) -> None:
    before = digests()
    edit(package / "cluster" / "launch.py", "GRACE = 20.0", "GRACE = 30.0")
    edit(package / "report" / "build.py", "from lockstep", "import math\nfrom lockstep")
    assert digests() == before


def test_an_engine_is_not_in_the_other_frameworks_closure() -> None:
    modules = code.closure("lockstep.training.worker", *framework_modules("jax", "mnist_cnn"))
    assert "lockstep.engines.jax_engine" in modules
    assert not [name for name in modules if "torch" in name]


def test_how_runs_are_recorded_and_traces_compared_decides_no_trace() -> None:
    modules = code.closure("lockstep.parity.trace")
    assert "lockstep.parity.joint" in modules and "lockstep.parity.climb" in modules
    others = {"training.worker", "training.loop", "training.records", "parity.distances"}
    assert not {f"lockstep.{name}" for name in others} & {*modules}


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_what_one_framework_runs_imports_without_the_other(framework: str) -> None:
    """As in an image that holds one framework only."""
    import subprocess

    other = {"torch": "jax", "jax": "torch"}[framework]
    modules = ["lockstep.training.worker", "lockstep.parity.trace"]
    modules += framework_modules(framework, "mnist_cnn")
    blocked = "".join(
        f"sys.modules[{name!r}] = None\n"
        for name in (other, "flax"[: 4 * (other == "jax")])
        if name
    )
    script = (
        f"import sys, importlib\n{blocked}\nfor name in {modules!r}: importlib.import_module(name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(Path(importlib.import_module("lockstep").__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr


def test_the_launcher_needs_the_standard_library_only() -> None:
    import subprocess

    modules = "lockstep.training.block", "lockstep.cluster.launch", "lockstep.machine"
    script = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] not in {*sys.stdlib_module_names, 'lockstep'}:\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        f"import {', '.join(modules)}\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env={"PYTHONPATH": str(code.PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr


def test_a_workload_elsewhere_has_the_hash_of_one_in_the_package(tmp_path: Path) -> None:
    """So an archive, which holds it as if it lay in the package, can be checked."""
    letters.write(tmp_path / "mine")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(code.PACKAGE, tmp_path / "lockstep", ignore=ignored)
    shutil.copytree(tmp_path / "mine/letters_lm", tmp_path / "lockstep/workloads/letters_lm")
    inside = identity.run_code("jax", "letters_lm", tmp_path / "lockstep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(code, "_ELSEWHERE", {})
        code.place("lockstep.workloads.letters_lm", tmp_path / "mine/letters_lm")
        assert identity.run_code.__wrapped__("jax", "letters_lm") == inside
    code._imports.cache_clear()
