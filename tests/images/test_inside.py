"""A command in an image: what it sees, what it may write, and how it ends."""

import json
import signal
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.images.conftest import Machine

SIDE_BY_SIDE = """
import json, os, subprocess, time
from lockstep.images import enter

os.chdir({folder!r})
leave = enter.Pass(
    image={image!r}, identity="1234", name="base",
    writable=("results",), readable=("data",), caches="results/cache",
)
inside = enter.command(leave, ["-c", {inside!r}])
"""
Drive = Callable[[str, str], str]


@pytest.fixture(scope="module")
def folder(machine: Machine) -> Path:
    """A study's folders."""
    made = machine.make_folder("study")
    for name in ("results", "data"):
        (made / name).mkdir()
    machine.give(made)
    return made


@pytest.fixture
def drive(machine: Machine, base: Path, folder: Path) -> Drive:
    """Run code outside, which has the command line `inside` that runs other code in the image."""

    def run(outside: str, inside: str) -> str:
        image = str(base / "image.sif")
        start = SIDE_BY_SIDE.format(folder=str(folder), image=image, inside=textwrap.dedent(inside))
        return machine.run(machine.python, "-c", start + textwrap.dedent(outside)).stdout

    return run


def test_nothing_of_the_host_is_seen_but_the_study(drive: Drive, machine: Machine) -> None:
    answer = drive(
        """
        subprocess.run(inside, env={**os.environ, "LEAK": "leaked", "LOCKSTEP_RANK": "3"})
        """,
        """
        import importlib.util, json, os, sys
        print(json.dumps({
            "path": sys.path,
            "environment": dict(os.environ),
            "here": sorted(os.listdir(".")),
            "snakemake": importlib.util.find_spec("snakemake") is not None,
            "home": os.path.expanduser("~"),
        }))
        """,
    )
    seen = json.loads(answer)
    package = str(machine.repository / "workflow")
    assert [path for path in seen["path"] if not path.startswith(("/usr/", "/opt/"))] == [package]
    assert seen["here"] == ["data", "results"]
    assert not seen["snakemake"]
    assert seen["home"] == "/tmp"
    assert seen["environment"]["LOCKSTEP_RANK"] == "3"
    assert "LEAK" not in seen["environment"]


def test_no_documentation_caches_or_lists_are_left(drive: Drive) -> None:
    answer = drive(
        "subprocess.run(inside)",
        """
        import glob
        below = ("/usr/share/{}", "/opt/lockstep/share/{}")
        names = ("doc", "doc-base", "info", "locale", "man", "man/man1")
        left = [place.format(name) + "/*" for place in below for name in names]
        left += ["/var/cache/*", "/var/lib/apt/lists/*", "/var/log/*", "/root/.cache"]
        left += ["/opt/lockstep/lib/python3*/site-packages/pip*"]
        print([path for pattern in left for path in glob.glob(pattern)])
        """,
    )
    assert answer == "[]\n"


def test_only_results_and_scratch_can_be_written(
    drive: Drive, machine: Machine, folder: Path
) -> None:
    answer = drive(
        "subprocess.run(inside)",
        f"""
        package = "{machine.repository}/workflow/x"
        for path in ("results/x", "/tmp/x", "data/x", package, "/opt/x"):
            try:
                open(path, "w").close()
                print("yes")
            except OSError:
                print("no")
        """,
    )
    assert answer.split() == ["yes", "yes", "no", "no", "no"]
    assert sorted(path.name for path in folder.iterdir()) == ["data", "results"]
    assert not (machine.folder / "tmp" / "x").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signals_and_exit_status_come_through(drive: Drive, number: int) -> None:
    answer = drive(
        f"""
        process = subprocess.Popen(inside, stdout=subprocess.PIPE)
        process.stdout.readline()
        process.send_signal({int(number)})
        print(process.wait(600))
        """,
        f"""
        import signal, sys, time
        signal.signal({int(number)}, lambda *_: sys.exit(75))
        print("ready", flush=True)
        for _ in range(6000):  # a signal just before a long sleep would wait for its end
            time.sleep(0.1)
        """,
    )
    assert answer.strip() == "75"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_goes_on_when_its_starter_is_gone(drive: Drive, number: int) -> None:
    """Killed itself, or the launcher that started it: Apptainer hears of both."""
    answer = drive(
        f"""
        launcher = "import subprocess, sys; subprocess.run(sys.argv[1:])"
        process = subprocess.Popen(["python3", "-c", launcher, *inside], stdout=subprocess.PIPE)
        pid = int(process.stdout.readline())
        assert os.path.exists(f"/proc/{{pid}}")
        process.send_signal({int(number)})
        process.wait()
        deadline = time.monotonic() + 300
        while os.path.exists(f"/proc/{{pid}}") and time.monotonic() < deadline:
            time.sleep(0.1)
        print(os.path.exists(f"/proc/{{pid}}"))
        """,
        "import os, time; print(os.getpid(), flush=True); time.sleep(600)",
    )
    assert answer.strip() == "False"


def test_a_start_says_nothing(drive: Drive) -> None:
    answer = drive(
        """
        done = subprocess.run(inside, capture_output=True, text=True)
        print(json.dumps(done.stdout + done.stderr))
        """,
        "pass",
    )
    assert json.loads(answer) == ""
