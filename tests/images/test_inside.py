"""A command in an image: what it sees, what it may write, and how it ends."""

import json
import signal
import textwrap
from pathlib import Path

import pytest
from conftest import Machine

DRIVER = """
import json, os, signal, subprocess, sys, time
from lockstep.images import enter

os.chdir({folder!r})
leave = enter.Pass(
    image={image!r}, identity="1234", name="base",
    writable=("results",), readable=("data",), caches="results/cache",
)

def inside(code, **options):
    return subprocess.run(
        enter.command(leave, ["-c", code]), capture_output=True, text=True, **options
    )
"""


@pytest.fixture(scope="module")
def folder(machine: Machine) -> Path:
    """A study's folders."""
    made = machine.make_folder("study")
    for name in ("results", "data"):
        (made / name).mkdir()
    machine.give(made)
    return made


@pytest.fixture
def drive(machine: Machine, base: Path, folder: Path):
    """Run Python code on the host's side, with `inside` to run code in the image."""

    def run(code: str) -> str:
        start = DRIVER.format(folder=str(folder), image=str(base / "image.sif"))
        return machine.run(machine.python, "-c", start + textwrap.dedent(code)).stdout

    return run


def test_nothing_of_the_host_is_seen_but_the_study(drive, machine: Machine, folder: Path) -> None:
    answer = drive("""
        probe = '''
        import importlib.util, json, os, sys
        print(json.dumps({
            "path": sys.path,
            "environment": dict(os.environ),
            "beside": os.listdir(".."),
            "here": sorted(os.listdir(".")),
            "snakemake": importlib.util.find_spec("snakemake") is not None,
            "home": os.path.expanduser("~"),
        }))'''.replace("\\n        ", "\\n")
        os.environ["LEAK"] = "leaked"
        os.environ["LOCKSTEP_RANK"] = "3"
        answer = inside(probe)
        print(answer.stdout, answer.stderr)
    """)
    seen = json.loads(answer)
    package = str(machine.repository / "workflow")
    assert [path for path in seen["path"] if not path.startswith(("/usr/", "/opt/"))] == [package]
    assert seen["here"] == ["data", "results"]
    assert not seen["snakemake"]
    assert seen["home"] == "/tmp"
    assert seen["environment"]["LOCKSTEP_RANK"] == "3"
    assert "LEAK" not in seen["environment"]


def test_only_results_and_scratch_can_be_written(drive, machine: Machine) -> None:
    answer = drive(f"""
        code = '''
        package = "{machine.repository}/workflow/x"
        for path in ("results/x", "/tmp/x", "data/x", package, "/opt/x", "x"):
            try:
                open(path, "w").close()
                print("yes", end=" ")
            except OSError:
                print("no", end=" ")
        '''.replace("\\n        ", "\\n")
        print(inside(code).stdout)
    """)
    assert answer.split() == ["yes", "yes", "no", "no", "no", "no"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signals_and_exit_status_come_through(drive, number: int) -> None:
    answer = drive(f"""
        code = '''
        import signal, sys, time
        signal.signal({int(number)}, lambda *_: sys.exit(75))
        print("ready", flush=True)
        time.sleep(60)
        '''.replace("\\n        ", "\\n")
        process = subprocess.Popen(enter.command(leave, ["-c", code]), stdout=subprocess.PIPE)
        process.stdout.readline()
        process.send_signal({int(number)})
        print(process.wait(30))
    """)
    assert answer.strip() == "75"


def test_nothing_goes_on_when_the_starter_is_killed(drive) -> None:
    answer = drive("""
        code = "import time; print('ready', flush=True); time.sleep(611)"
        process = subprocess.Popen(enter.command(leave, ["-c", code]), stdout=subprocess.PIPE)
        process.stdout.readline()
        process.kill()
        process.wait()
        time.sleep(1)
        left = subprocess.run(["pgrep", "-fc", "[t]ime.sleep.611"], capture_output=True, text=True)
        print(left.stdout)
    """)
    assert answer.strip() == "0"


def test_a_start_costs_less_than_two_seconds_and_says_nothing(drive) -> None:
    answer = drive("""
        inside("pass")
        started = time.monotonic()
        done = inside("pass")
        print(json.dumps([time.monotonic() - started, done.stdout + done.stderr]))
    """)
    seconds, noise = json.loads(answer)
    assert seconds < 2
    assert noise == ""
