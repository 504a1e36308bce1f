"""`python -m lockstep check` and `run`: look at everything first, then start Snakemake.

Snakemake reads configs and profiles before any of our code can say what is wrong with them. What it
is started with here is what a person would have typed, so that the results are the same.
"""

import argparse
import importlib.util
import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lockstep.cluster import profile
from lockstep.errors import UserError, nearest
from lockstep.study import Study

STAGES = ("all", "images", "datasets", "parity", "runs", "deploy", "report", "archive")
LOCAL = "profiles/local"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `run` understands; `run` itself takes it apart (`_taken_apart`)."""
    parser.usage = (
        "python -m lockstep run [STUDY.yaml …] [STAGE] [--profile PROFILE] [OPTION OF SNAKEMAKE …]"
    )
    parser.add_argument(
        "what", nargs="*", help=f"config files (config.yaml), and a stage: {', '.join(STAGES)}"
    )
    parser.add_argument("--profile", default=LOCAL, help=f"slurm, or {LOCAL} (the default)")


def check(configs: Sequence[Path], profile_name: str) -> Study:
    """Check a study and where it is to run, and say how large it is; returns it.

    Raises:
        UserError: says what is wrong, where, and what would be right.
    """
    from lockstep.study import config, estimate, feasible  # which read workloads, with NumPy

    settings = profile.read(_profile(profile_name) / "profile.yaml")
    executor = settings.get("executor", "local")
    if executor == "slurm":
        profile.check(settings)
    study = Study(config.load(*configs))
    feasible.check(study, local=executor == "local")
    names = ", ".join(map(str, configs))
    odd = feasible.oversubscribed(study) if executor == "local" else []
    for line in (*estimate.lines(study), *odd):
        print(f"{names}: {line}", flush=True)
    return study


def run(line: Sequence[str]) -> int:
    """Check a study and become Snakemake.

    Args:
        line: the command line after `run`.

    Raises:
        UserError: something is wrong; nothing was started.
    """
    words, profile_name, more = _taken_apart(line)
    stages = [word for word in words if word in STAGES]
    configs = [Path(word) for word in words if word not in STAGES] or [Path("config.yaml")]
    for path in configs:
        if not path.is_file() and path.suffix not in (".yaml", ".yml"):
            raise UserError(f"{path} is neither a file nor a stage; {nearest(str(path), STAGES)}")
    values = [word.rpartition("=")[2] for word in more]
    if behind := [value for value in values if Path(value).suffix in (".yaml", ".yml")]:
        raise UserError(
            f"{behind[0]} stands behind an option of Snakemake, which would take it; write "
            f"run {behind[0]}, then a stage, then options"
        )
    if len(stages) > 1:
        raise UserError(f"{' and '.join(stages)}: give one stage; it makes what it needs before")
    if not Path("Snakefile").is_file():
        raise UserError("there is no Snakefile here; start this in the folder of the checkout")
    if importlib.util.find_spec("snakemake") is None:
        raise UserError("Snakemake is not installed in this Python; make setup, then use .venv")
    check(configs, profile_name)
    os.environ.update(_caches())
    command = [sys.executable, "-m", "snakemake", *stages, *more]
    command += ["--profile", str(_profile(profile_name)), "--configfile", *map(str, configs)]
    os.execv(command[0], command)


def _taken_apart(line: Sequence[str]) -> tuple[list[str], str, list[str]]:
    """Return the words before the first option, the profile, and what is for Snakemake."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--profile", default=LOCAL)
    options, rest = own.parse_known_args(list(line))
    words = list(itertools.takewhile(lambda word: not word.startswith("-"), rest))
    return words, options.profile, [word for word in rest[len(words) :] if word != "--"]


def _profile(name: str) -> Path:
    """Return a profile's folder: as it is named, in `profiles`, or in those of this package."""
    own = profile.PATH.parents[1]
    places = Path(name), Path("profiles") / name, own / Path(name).name
    for folder in places:
        if (folder / "profile.yaml").is_file() or (folder / "config.yaml").is_file():
            return folder
    known = [path.parent.name for path in own.glob("*/profile.yaml")]
    right = nearest(name, known) if known else "start this in the folder of the checkout"
    raise UserError(f"--profile {name}: there is no such profile; {right}")


def _caches() -> dict[str, str]:
    """Return where caches go if this user's home cannot be written, as on some clusters."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    try:
        (home / "snakemake").mkdir(parents=True, exist_ok=True)
    except OSError:
        return {"XDG_CACHE_HOME": str(Path(".snakemake", "cache").absolute())}
    return {}
