"""`python -m lockstep run`: a newcomer's mistakes are one line each, before anything is started."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import yaml

from lockstep import __main__ as command_line
from lockstep import files, front_door, machine
from lockstep.study import Study, config, estimate
from lockstep.study.identity import run_code
from tests.conftest import ROOT

DEMO = (ROOT / "demo" / "config.yaml").read_text()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a checkout, in which nothing may be started."""
    (tmp_path / "Snakefile").touch()
    (tmp_path / "profiles").symlink_to(ROOT / "profiles")
    (tmp_path / "slurm").symlink_to("profiles/slurm")
    (tmp_path / "config.yaml").write_text(DEMO)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that this process would have become."""
    commands: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, command: commands.append(command))
    return commands


def demo(old: str, new: str) -> str:
    assert old in DEMO
    return DEMO.replace(old, new)


MISTAKES = {  # what the config says, and what the line must hold
    "a key with a slip": (demo("seeds:", "sead:"), ("unknown key 'sead'", "'seeds'")),
    "one seed, no list": (demo("[0, 1, 2]", "5"), ("seeds is 5; write a list: [5]",)),
    "one scale, no list": (demo("[1x1]", "1x2"), ("scales is '1x2'; write a list: [1x2]",)),
    "a scale the wrong way": (demo("[1x1]", "[1*2]"), ("scales[0] is '1*2'", "such as 1x1 or 2x4")),
    "a path for a shell": (
        DEMO + "paths: {results: $HOME/x}\n",
        ("paths.results is '$HOME/x'; no shell", "so write the path out: /"),
    ),
    "a home": (
        demo("{source: digits}", "{source: digits, raw: ~/digits}"),
        ("datasets.digits.raw is '~/digits'; no shell", "so write the path out: /"),
    ),
    "a precision of GPUs": (
        demo("torch, mode: eager}", "torch, mode: eager, precision: tf32}"),
        ("variants.torch-eager.precision is tf32, which GPUs alone have",),
    ),
    "a number in words": (demo("window_steps: 10", "window_steps: ten"), ("whole number", "25")),
    "half a thread": (demo("threads: 2", "threads: 2.0"), ("write a whole number: 2",)),
    "nothing behind a colon": (demo("threads: 2", "threads:"), ("threads is empty; write a",)),
    "a name in capitals": (demo("study: demo", "study: My Demo"), ("small letters",)),
    "a number as a name": (demo("study: demo", "study: 2024"), ("in quotes: '2024'",)),
    "yes and no": (demo("paired: true", "paired: 1"), ("blocks.paired is 1", "true or false")),
    "a tab": (demo("  digits:", "\tdigits:"), ("line 5, column 1: not valid YAML",)),
    "an open bracket": (demo("[0, 1, 2]", "[0, 1, 2"), ("line", "not valid YAML")),
    "no colon": (demo("threads: 2", "threads 2"), ("line", "not valid YAML")),
    "a key twice": (DEMO + "seeds: [9]\n", ("key 'seeds' is given twice",)),
    "an unknown mode": (demo("mode: eager", "mode: jit"), ("torch has eager and compile",)),
    "an unknown workload": (demo("mnist_cnn:", "mnist_cnm:"), ("'mnist_cnm'", "'mnist_cnn'")),
    "an unknown source": (demo("source: digits", "source: digit"), ("did you mean 'digits'?",)),
    "an exponent that YAML does not know": (
        demo("learning_rate: 0.01", "learning_rate: 1e-2"),
        ("optimizer.learning_rate is '1e-2'", "for a number write 0.01"),
    ),
    "epochs in quotes": (demo("epochs: 12", 'epochs: "12"'), ("epochs is '12'; write a whole",)),
    "a batch larger than the data": (
        demo("epochs: 12", "global_batch: 3000000"),
        ("global_batch is 3000000, more than the 1437 training examples",),
    ),
    "more processes than cores": (
        demo("[1x1]", "[1x64]"),
        ("scales has 1x64, but this machine has 2 cores", "--profile slurm"),
    ),
    "a tracker that is not installed": (
        DEMO + "tracking: {wandb: true}\n",
        ("tracking.wandb is true, but the package wandb is not installed",),
    ),
    "raw files that are nowhere": (
        demo("source: digits", "source: mnist, raw: nowhere"),
        ("datasets.digits.raw is 'nowhere', which is not a folder",),
    ),
    "latin-1": ("study: caf\xe9\n".encode("latin-1"), ("is not UTF-8 (byte 10)",)),
    "an empty file": ("", ("holds no keys",)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_config(
    mistake: str,
    here: Path,
    started: list,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    content, says = MISTAKES[mistake]
    (here / "study.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    monkeypatch.setattr(machine, "gpu_count", lambda: 0)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "wandb" else find(n))
    assert command_line.main(["run", "study.yaml"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lockstep: error: ")
    for text in says:
        assert text in line
    assert not started
    assert sorted(path.name for path in here.iterdir()) == [
        *("Snakefile", "config.yaml", "profiles", "slurm", "study.yaml")
    ]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("run paraty", "paraty is neither a file nor a stage; did you mean 'parity'?"),
        ("run studi.yaml", "studi.yaml: cannot be read (No such file or directory)"),
        ("run parity report", "parity and report: give one stage"),
        ("run -n config.yaml", "config.yaml stands behind an option of Snakemake, which would"),
        ("run -R train my.yaml", "my.yaml stands behind an option of Snakemake, which would take"),
        ("run --configfile my.yaml", "my.yaml stands behind an option of Snakemake, which would"),
        ("run --profile slrm", "--profile slrm: there is no such profile; did you mean 'slurm'?"),
        ("check config.yaml --profile nowhere", "--profile nowhere: there is no such profile"),
    ],
)
def test_a_mistake_on_the_command_line(
    line: str, says: str, here: Path, started: list, capsys: pytest.CaptureFixture
) -> None:
    assert command_line.main(line.split()) == 2
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(f"lockstep: error: {says}")
    assert not started


def test_without_a_checkout_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command_line.main(["run"]) == 2
    assert "there is no Snakefile here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("run", "--profile profiles/local --configfile config.yaml"),
        ("run parity", "parity --profile profiles/local --configfile config.yaml"),
        ("run --profile slurm", "--profile slurm --configfile config.yaml"),
        (
            "run config.yaml more.yaml report --profile local -n -R train",
            "report -n -R train --profile profiles/local --configfile config.yaml more.yaml",
        ),
        ("run -n --profile slurm", "-n --profile slurm --configfile config.yaml"),
    ],
)
def test_it_becomes_the_command_that_a_person_would_type(
    line: str, becomes: str, here: Path, started: list, capsys: pytest.CaptureFixture
) -> None:
    (here / "more.yaml").write_text("seeds: [7]\n")
    command_line.main(line.split())
    assert started == [[sys.executable, "-m", "snakemake", *becomes.split()]]
    assert "study demo, " in capsys.readouterr().out


def test_a_home_that_cannot_be_written_is_not_needed(
    here: Path, started: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/cache")
    command_line.main(["run"])
    assert started
    assert os.environ["XDG_CACHE_HOME"] == str(here / ".snakemake" / "cache")


# How large a study is ------------------------------------------------------------------------


def test_the_size_of_a_study_is_told_and_its_time_from_earlier_runs(here: Path) -> None:
    study = Study(config.complete(yaml.safe_load(DEMO)))
    sized = "study demo, 12 runs in 3 jobs, after 9 jobs that prepare them"
    assert estimate.lines(study) == [sized]
    for run in study.runs[:2]:  # of two variants, as long as twice as few epochs
        settings = study.run_config(run)
        recipe = {**settings["workload"], "epochs": 6}
        summary = {
            "status": "finished",
            "resumed_from": None,
            "seconds": {"import": 30.0, "training": 100.0, "data_wait": 50.0, "evaluation": 5.0},
            "contract": {"determined_by": {"settings": {**settings, "workload": recipe}}},
        }
        path = study.root.with_name("earlier") / "runs" / run.name / "summary.json"
        files.write_json(path, summary)
    (study.root / "runs").mkdir(parents=True)
    (study.root / "runs" / "summary.json").write_text("{")  # damaged: passed over
    minutes = 6 * (30 + 2 * 105) / 60
    assert estimate.lines(study) == [
        sized,
        f"by earlier runs of their kind 6 of them take about {minutes:.0f} min, one at a time",
    ]


def test_what_a_changed_study_of_the_same_name_replaces_is_told_before(here: Path) -> None:
    raw = yaml.safe_load(DEMO)
    study = Study(config.complete(raw))
    for run in study.runs[:3]:
        by = {"settings": study.run_config(run), "code": run_code(*study.framework(run))}
        summary = {"status": "finished", "contract": {"determined_by": by}}
        files.write_json(study.run_folder(run) / "summary.json", summary)
    assert len(estimate.lines(study)) == 1
    raw["workloads"]["mnist_cnn"]["epochs"] = 13
    told = estimate.lines(Study(config.complete(raw)))[1]
    assert told.startswith("3 finished runs in results/demo had other settings or other code and")
    raw["study"] = "other"
    assert len(estimate.lines(Study(config.complete(raw)))) == 1


def test_a_run_that_is_too_short_to_be_timed_is_told_before(here: Path) -> None:
    raw = yaml.safe_load(DEMO) | {"window_steps": 25}
    raw["workloads"]["mnist_cnn"]["epochs"] = 1
    (_, line) = estimate.lines(Study(config.complete(raw)))
    assert line.startswith("a run of mnist_cnn has 23 steps, which is one window of window_steps")
    assert line.endswith("set window_steps to 2")
    raw["workloads"]["mnist_cnn"] |= {"epochs": 2, "schedule": {"warmup_epochs": 3}}
    (_, line) = estimate.lines(Study(config.complete(raw)))
    assert line == "mnist_cnn warms up for 3 epochs and trains 2: for too long"
    raw["workloads"]["mnist_cnn"]["schedule"] = {}
    assert len(estimate.lines(Study(config.complete(raw)))) == 1


@pytest.mark.parametrize(("source", "also"), [("mnist", True), ("image_folder", False)])
def test_nobody_is_told_to_download_what_cannot_be(
    source: str, also: bool, here: Path, capsys: pytest.CaptureFixture
) -> None:
    entry = f"{{source: {source}, raw: nowhere}}"
    (here / "study.yaml").write_text(demo("{source: digits}", entry))
    assert command_line.main(["check", "study.yaml"]) == 2
    assert ("or null to download them" in capsys.readouterr().err) == also


def test_check_looks_at_what_run_looks_at(here: Path, capsys: pytest.CaptureFixture) -> None:
    (here / "more.yaml").write_text("scales: [1x100000]\nworkloads: {mnist_cnn: {epochs: 1}}\n")
    assert command_line.main(["check", "config.yaml"]) == 0
    assert capsys.readouterr().out.startswith("config.yaml: study demo, 12 runs in 3 jobs")
    (here / "more.yaml").write_text("threads: 4096\n")
    assert command_line.main(["check", "config.yaml", "more.yaml"]) == 0
    assert "more.yaml: threads is 4096, and this machine has " in capsys.readouterr().out
    assert command_line.main(["check"]) == 0  # as `run` takes config.yaml
    assert capsys.readouterr().out.startswith("config.yaml: study demo, 12 runs in 3 jobs")
    assert front_door.STAGES[0] == "all"
