"""What running a study again would run: said before anything is written or run."""

import copy
import shlex
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.archive import layout, parts, settings
from lockstep.archive.findings import printable, reason
from lockstep.errors import UserError, nearest
from lockstep.study import Study

CHECKOUT = "lockstep"
ARCHIVED = "archived"
CONFIG = "reproduce.json"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study to be run again.

    Attributes:
        config: complete, of the chosen part.
        runs: names of the runs that were chosen; variants that parity needs may come besides.
        profile: Snakemake's: one of the archived source, or a path.
        folder: empty, or not there yet.
    """

    config: Mapping[str, Any]
    runs: Sequence[str]
    profile: str
    folder: Path

    @property
    def checkout(self) -> Path:
        """Where the archived source goes, and is run."""
        return self.folder / CHECKOUT

    @property
    def command(self) -> list[str]:
        """What runs the study."""
        # The target goes first: Snakemake takes what follows --configfile for more of them.
        return [
            sys.executable, "-m", "snakemake", "report",
            "--profile", self.profile, "--configfile", CONFIG,
        ]  # fmt: skip

    def lines(self, manifest: Mapping[str, Any]) -> list[str]:
        """Return what a person reads before it begins."""
        study, source = Study(self.config), manifest["source"]
        commit = source["commit"] or "of unknown commit"
        kinds = {entry["source"] for entry in self.config["datasets"].values()}
        images, held = self.config["images"], parts.large(manifest["files"])
        shards = [name for name in held if name.endswith(".h5")]
        how = "archived shards, below" if shards else "obtained by the workflow"
        lines = [
            f"archive: digest {manifest['digest']}",
            f"study {study.name}: {len(self.runs)} of its runs, in {self.folder}",
            f"code: the archive's, {commit} ({source['note']})",
            f"command, in {self.checkout}: {shlex.join(self.command)}",
            f"datasets: {', '.join(sorted(self.config['datasets']))}, from "
            f"{', '.join(sorted(kinds))}, {how}",
        ]
        for name, entry in self.config["datasets"].items():
            if entry["raw"]:
                lines.append(f"  raw files of {name}: {entry['raw']}")
        if images["enabled"] and len(held) > len(shards):
            lines.append("images: archived ones, below; others are built from the definitions")
        elif images["enabled"]:
            lines.append(f"images: built from the archived definitions and locks, {images['cuda']}")
        else:
            lines.append("images: none; the packages of this Python are used")
        lines += [f"  archived: {n}, sha256 {manifest['files'][n]['sha256']}" for n in held]
        extra = len(study.runs) - len(self.runs)
        if extra:
            lines.append(f"besides: {extra} runs that share a block or the reference with them")
        return [printable(line) for line in lines]


def plan(
    config: Mapping[str, Any],
    *,
    folder: Path,
    profile: str,
    only: Sequence[str] = (),
    raw: Sequence[str] = (),
    archived: Collection[str] = (),
) -> Plan:
    """Return what is to be run.

    Args:
        config: the archived study's.
        only: beginnings of runs' names, WORKLOAD/VARIANT/SCALE/seed-S; empty for all.
        raw: NAME=FOLDER, folders with raw files of datasets.
        archived: what the archive holds.

    Raises:
        UserError: nothing is chosen, a dataset is unknown, or the folder is not empty.
    """
    _check_empty(folder)
    chosen = copy.deepcopy(settings.reproducible(config))
    names = [run.name for run in Study(chosen).runs]
    runs = [name for name in names if not only or any(_begins(name, part) for part in only)]
    for part in only:
        if not any(_begins(name, part) for name in names):
            raise UserError(f"--only {part}: no run of the study; {nearest(part, names)}")
    _keep(chosen, runs)
    for entry in raw:
        name, found, path = entry.partition("=")
        if not found or name not in chosen["datasets"]:
            raise UserError(
                f"--raw {entry}: must be NAME=FOLDER; {nearest(name, chosen['datasets'])}"
            )
        if not _is_folder(f"--raw {entry}", Path(path)):
            raise UserError(f"--raw {entry}: {path} is not a folder")
        chosen["datasets"][name]["raw"] = str(Path(path).absolute())
    made = Plan(config=chosen, runs=runs, profile=profile, folder=folder.absolute())
    for name in parts.ready(archived):
        chosen["images"]["ready"][name] = str(made.checkout / parts.ready_place(name))
    return made


def profile(name: str, archived: Collection[str]) -> str:
    """Return a profile as Snakemake finds it from the checkout: the archive's own, or one here.

    Args:
        archived: what the archive holds.

    Raises:
        UserError: there cannot be a folder of that name.
    """
    own = layout.SOURCE + name.rstrip("/")
    if any(member == own or member.startswith(f"{own}/") for member in archived):
        return name
    try:
        here = Path(name).expanduser()
    except RuntimeError as error:
        raise UserError(f"--profile {name}: there is no such user; name a folder") from error
    return str(here.absolute()) if _is_folder(f"--profile {name}", here) else name


def _check_empty(folder: Path) -> None:
    try:
        used = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be used, {reason(error)}; name another folder"
        ) from error
    if used:
        raise UserError(f"{folder}: must be an empty folder, or not be there yet")


def _is_folder(option: str, path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:  # such as a name that is too long
        raise UserError(f"{option}: cannot be used, {reason(error)}; name a folder") from error


def _begins(name: str, part: str) -> bool:
    return f"{name}/".startswith(part.rstrip("/") + "/")


def _keep(config: dict[str, Any], runs: Sequence[str]) -> None:
    """Leave out of a config what no chosen run needs; the reference of parity stays."""
    parts = [name.split("/") for name in runs]
    reference = next(iter(config["variants"]))
    variants = {reference, *(part[1] for part in parts)}
    if config["blocks"]["paired"]:
        variants = set(config["variants"])  # their order within a block is part of how it was run
    seeds = {int(part[3].removeprefix("seed-")) for part in parts}
    workloads = {part[0] for part in parts}
    config["workloads"] = {k: v for k, v in config["workloads"].items() if k in workloads}
    config["variants"] = {k: v for k, v in config["variants"].items() if k in variants}
    config["scales"] = [s for s in config["scales"] if s in {part[2] for part in parts}]
    # Parity is traced with the first seed, which may be another one now: then its traces are not
    # those of the archive, and are not compared.
    config["seeds"] = [s for s in config["seeds"] if s in seeds]
    used = {entry["dataset"] for entry in config["workloads"].values()}
    config["datasets"] = {k: v for k, v in config["datasets"].items() if k in used}
