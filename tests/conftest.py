"""Fixtures that many tests share: a small study on the embedded digits, ready to train."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from lockstep import files, machine, workloads
from lockstep.datasets import prepare
from lockstep.study import Study, config
from lockstep.workloads import weights

pytest_plugins = ["tests.archive.archived"]  # the study that two folders share

ROOT = Path(__file__).resolve().parents[1]

PATIENCE = 600.0
"""Seconds after which a test gives up: no measure of anything, a machine may be slow and busy."""

DIGITS = {
    "study": "test",
    "datasets": {"digits": {"source": "digits"}},
    "workloads": {
        "mnist_cnn": {"dataset": "digits", "epochs": 1, "optimizer": {"learning_rate": 0.01}}
    },
    "variants": {
        "torch-eager": {"framework": "torch", "mode": "eager"},
        "jax-jit": {"framework": "jax", "mode": "jit", "convolution": "im2col"},
    },
    "threads": 2,
    # Tests time nothing, and have neighbours.
    "blocks": {"share_nodes": True, "cold_start": False, "watch": False},
    "window_steps": 5,
    "tracking": {"tensorboard": False},
}
"""One epoch of the digits: 23 steps, the last of 29 examples."""


SETTINGS = ("LOCKSTEP_BOX", "LOCKSTEP_DATASETS", "LOCKSTEP_REQUIRE")
"""What a person tells the tests, by the environment; they remove all else of ours from it."""

TOGETHER = {
    **dict.fromkeys(("archive", "reproduce"), "archive"),
    "cluster": "machines",
    "images": "machines",
    **dict.fromkeys(("test_killed.py", "test_reruns.py", "test_stages.py"), "finished"),
}
"""Folders and files whose tests share something dear: a study that was run, or a whole machine."""

FIRST = (
    *("cluster", "images", "end_to_end", "training", "archive", "reproduce", "parity"),
    "benchmarks",
)
"""Folders whose tests take longest: a worker that began them last would end alone."""

# Two workers share the cores (Makefile): threads that wait by spinning would take them both.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# A shell starts what it starts in the background with SIGINT ignored, and so would all below us.
signal.signal(signal.SIGINT, signal.default_int_handler)


class Grouped(LoadScopeScheduling):
    """Gives a worker all tests of a file at once, or of folders that share something."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        return TOGETHER.get(file.name) or TOGETHER.get(file.parent.name) or str(file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Grouped:
    """Replace pytest-xdist's own ways of sharing tests out."""
    config.option.loadscopereorder = False  # it would begin with the most tests, not the longest
    return Grouped(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave long tests to a drill; begin with what takes longest, where workers share them out."""

    def rank(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return FIRST.index(folder) if folder in FIRST else len(FIRST)

    if hasattr(config, "workerinput"):
        items.sort(key=rank)
    if "drill" not in os.environ.get("LOCKSTEP_REQUIRE", "").split(","):
        for item in items:
            if item.get_closest_marker("drill"):
                item.add_marker(pytest.mark.skip(reason="takes long; make drill-parity runs it"))


def lacks(what: str, reason: str) -> None:
    """Skip a test that this machine cannot run; fail it where LOCKSTEP_REQUIRE names `what`."""
    if what in os.environ.get("LOCKSTEP_REQUIRE", "").split(","):
        pytest.fail(f"LOCKSTEP_REQUIRE={what}, but {reason}", pytrace=False)
    pytest.skip(reason)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of its own with little room, mounted on a new folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the machine of tests/cluster/root.sh: images are built on it.

    The cluster has a copy: a machine with that in its file system believes to be on it.
    """
    script, kept = ROOT / "tests" / "cluster" / "root.sh", os.environ.get("LOCKSTEP_BOX")
    folder = Path(kept) / "machine" if kept else tmp_path_factory.mktemp("box") / "box"
    subprocess.run([script, "make", folder], check=True, stdin=subprocess.DEVNULL)
    yield folder
    if not kept:
        subprocess.run([script, "remove", folder], check=True)


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled programs, shared by all tests: compiling them anew would take most of the time."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(exist_ok=True)  # of all workers together
    return folder


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, preprocessed: their manifest."""
    folder = tmp_path_factory.mktemp("data") / "digits"
    entry = {"source": "digits", "options": {}}
    prepare.prepare("digits", entry, "0" * 64, Path("none"), folder)
    return folder / "manifest.json"


@pytest.fixture
def study_of(tmp_path: Path, digits: Path, caches: Path) -> Callable[..., Study]:
    """Make a study with its dataset and weights, under the test's own folder."""

    def make(name: str = "test", **changes: object) -> Study:
        raw = copy.deepcopy(DIGITS) | {"study": name}
        for key, value in changes.items():
            if isinstance(value, dict) and key in ("workloads", "tracking", "parity"):
                base = raw.setdefault(key, {})
                for inner, item in value.items():
                    merged = isinstance(item, dict) and isinstance(base.get(inner), dict)
                    base[inner] = {**base[inner], **item} if merged else item
            else:
                raw[key] = value
        raw["paths"] = {"results": str(tmp_path / "results"), "data": str(tmp_path / "data")}
        study = Study(config.complete(raw))
        files.write_json(study.path, study.config)
        for entry in study.config["workloads"].values():
            target = study.dataset_folder(entry["dataset"])
            if not target.exists():
                shutil.copytree(digits.parent, target)
        for workload, recipe in study.config["workloads"].items():
            for seed in study.config["seeds"]:
                spec = workloads.spec(recipe["workload"])
                state = weights.initial(spec, recipe["model"], seed)
                weights.save(study.weights(workload, seed), state)
        shared = study.caches(machine.instruction_set())
        if not shared.is_symlink():
            shared.parent.mkdir(parents=True)
            shared.symlink_to(caches)
        return study

    return make


@pytest.fixture
def residual_of(study_of: Callable[..., Study]) -> Callable[..., Study]:
    """Make a study of a small residual network on coloured digits."""
    from tests import pictures

    def make(name: str, *, batch_norm: str = "device", **changes: object) -> Study:
        entry = {
            "dataset": "digits",
            "epochs": 2,
            "global_batch": 32,
            "model": {"blocks": [1], "width": 4, "size": 12, "batch_norm": batch_norm},
            "augment": {"padding": 2},
        }
        study = study_of(name, workloads={"resnet18_cifar10": entry}, **changes)
        folder = study.dataset_folder("digits")
        shutil.rmtree(folder)
        pictures.write(folder, pictures.coloured())
        return study

    return make


def lockstep(
    *arguments: object, check: bool = True, **options: object
) -> subprocess.CompletedProcess:
    """Run `python -m lockstep …` as a rule does."""
    command = [sys.executable, "-m", "lockstep", *map(str, arguments)]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=PATIENCE, **options
    )
    if check and done.returncode:
        raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def environment() -> dict[str, str]:
    """The environment of a stage: this package first."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}


def train(
    study: Study, block: str, *more: object, check: bool = True
) -> subprocess.CompletedProcess:
    """Train a block of a study."""
    return lockstep("train", "--study", study.path, "--block", block, *more, check=check)


def stop(study: Study, block: str, *more: object) -> Path:
    """Train a block for a second and to the end of a window; returns its newest checkpoint."""
    for budget in (1, 2, 4, 8):  # a busy machine may spend the first before anything is started
        assert train(study, block, "--time-budget", budget, *more, check=False).returncode == 75
        if saved := checkpoints(study.root, block):
            return saved[-1].parent
    raise AssertionError(f"{block}: never started")


def checkpoints(results: Path, block: str) -> list[Path]:
    """The manifests of a run's checkpoints, the newest one last."""
    try:
        return sorted((results / "checkpoints" / block).glob("*/step-*/manifest.json"))
    except FileNotFoundError:  # a run that has finished removes them
        return []


def start(study: Study, block: str, env: dict[str, str] | None = None) -> subprocess.Popen:
    """Start to train a block, to be interrupted."""
    command = [sys.executable, "-m", "lockstep", "train", "--study", study.path, "--block", block]
    known = env or environment()
    return subprocess.Popen(
        command, env=known, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def kill(process: subprocess.Popen, number: signal.Signals = signal.SIGKILL) -> int:
    """Send a signal to a launcher and all that it started; returns its exit status."""
    os.killpg(process.pid, number)
    process.communicate(timeout=PATIENCE)
    return process.returncode


def runs(number: int) -> bool:
    """Whether a process is there and is more than its parent's memory of it."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(
    condition: Callable[[], object],
    process: subprocess.Popen | None = None,
    timeout: float = PATIENCE,
) -> None:
    """Wait until a condition holds; in vain if the process that is to bring it about has ended."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process is not None and process.poll() is not None and not condition():
            said = process.communicate()[1] if process.stderr else ""
            raise AssertionError(f"it has ended before, with {process.returncode}: {said}")
        if time.monotonic() > deadline:
            raise AssertionError("waited in vain")
        time.sleep(0.005)


def slowly(folder: Path, name: str, seconds: float) -> dict[str, str]:
    """Return the environment of a stage in which each file of such a name takes long to appear.

    So that what is to happen in the middle does, on a fast machine and on a busy one.
    """
    (folder / "slow").mkdir(exist_ok=True)
    (folder / "slow" / "sitecustomize.py").write_text(SLOWLY.format(name=name, seconds=seconds))
    known = environment()
    return {**known, "PYTHONPATH": f"{folder / 'slow'}:{known['PYTHONPATH']}"}


SLOWLY = """
import sys, time

def hook(event, told):
    if event == "os.rename" and {name!r} in str(told[1]):
        time.sleep({seconds})

sys.addaudithook(hook)
"""


def summary(study: Study, block: str) -> dict:
    """A finished run's summary."""
    return json.loads((study.root / "runs" / block / "summary.json").read_text())


def staged(name: str) -> Path:
    """A folder of real data that a person staged; the test is skipped, or fails, without it."""
    folder = Path(os.environ.get("LOCKSTEP_DATASETS", ROOT.parent / "shared" / "datasets")) / name
    if not folder.is_dir():
        lacks("datasets", f"no staged {name} (LOCKSTEP_DATASETS names the folder that holds it)")
    return folder


@pytest.fixture(autouse=True)
def _no_leftovers() -> Iterator[None]:
    yield
    for name in list(os.environ):
        if name.startswith("LOCKSTEP_") and name not in SETTINGS:
            del os.environ[name]
    if "torch" in sys.modules:  # an engine in this process has NumPy flush denormals, too
        sys.modules["torch"].set_flush_denormal(False)
