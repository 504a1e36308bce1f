"""What running an archived study again would run: said before anything is written or run."""

import copy
import json
import re
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.archive import layout
from lockstep.archive.archive_reader import Archive
from lockstep.archive.archived_study import reproducible
from lockstep.archive.check_result import printable, reason
from lockstep.cluster import machine
from lockstep.errors import UserError, nearest
from lockstep.study import PACKAGES, Study
from lockstep.study.identity import dataset_identity

CHECKOUT, ARCHIVED, CONFIG = "lockstep", "archived", "reproduce.json"

RUN = ("Snakefile", "workflow/", "profiles/", "containers/", "slurm")
"""What of the source is run, and must be equal to that of `--source`."""

READY = re.compile(layout.DATA + r"images/([^/]+)-ready-[0-9a-f]{12}/image\.sif")

UNKNOWN = (
    "this runs code that nobody here has checked, with your rights. What it writes is then "
    "compared with the records, so it proves nothing unless the archive is the published one "
    "(--sha256) or its code is that of a checkout that you trust (--source)"
)


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


def plan(archive: Archive, *, folder: Path, profile: str, only: Sequence[str] = (),
         raw: Sequence[str] = ()) -> Plan:  # fmt: skip
    """Return what is to be run.

    Args:
        only: beginnings of runs' names, WORKLOAD/VARIANT/SCALE/seed-S; empty for all.
        raw: NAME=FOLDER, folders with raw files of datasets.

    Raises:
        UserError: nothing is chosen, a dataset is unknown, or the folder is not empty.
    """
    _check_empty(folder)
    chosen = copy.deepcopy(reproducible(archive.json_of(layout.STUDY)))
    names = [run.name for run in Study(chosen).runs]
    runs = [name for name in names if not only or any(_begins(name, part) for part in only)]
    for part in only:
        if not any(_begins(name, part) for name in names):
            raise UserError(f"--only {part}: no run of the study; {nearest(part, names)}")
    _keep(chosen, runs)
    for entry in raw:
        name, found, path = entry.partition("=")
        if not found or name not in chosen["datasets"]:
            hint = nearest(name, chosen["datasets"])
            raise UserError(f"--raw {entry}: must be NAME=FOLDER; {hint}")
        if not _is_folder(f"--raw {entry}", Path(path)):
            raise UserError(f"--raw {entry}: {path} is not a folder")
        chosen["datasets"][name]["raw"] = str(Path(path).absolute())
    found_profile = _profile(profile, archive.hashes)
    made = Plan(config=chosen, runs=runs, profile=found_profile, folder=folder.absolute())
    for name in ready(archive.hashes):
        chosen["images"]["ready"][name] = str(made.checkout / ready_place(name))
    return made


def lines(chosen: Plan, archive: Archive, *, trusted: bool) -> list[str]:
    """Return what a person reads before it begins.

    Args:
        trusted: the archive's sha256 or its code was compared with what the person named.
    """
    study, source = Study(chosen.config), archive.about["source"]
    images, held = chosen.config["images"], large(archive.hashes)
    shards = [name for name in held if name.endswith(".h5")]
    names = ", ".join(sorted(chosen.config["datasets"]))
    where = "archived shards, below" if shards else "obtained by the workflow"
    found = [
        f"archive: {archive.path}, sha256 {archive.sha256 or 'of no file: an unzipped folder'}",
        f"study {study.name}: {len(chosen.runs)} of its runs, in {chosen.folder}",
        f"code: the archive's, commit {source['commit'] or 'unknown'} ({source['note']})",
        f"command, in {chosen.checkout}: {shlex.join(chosen.command)}",
        f"datasets: {names}, {where}",
        *(f"  raw files of {name}: {entry['raw']}"
          for name, entry in chosen.config["datasets"].items() if entry["raw"]),
    ]  # fmt: skip
    if images["enabled"] and len(held) > len(shards):
        found.append("images: archived ones, below; others are built from the definitions")
    elif images["enabled"]:
        found.append(f"images: built from the archived definitions and locks, {images['cuda']}")
    else:
        found.append("images: none; the packages of this Python are used")
        found += [f"  differs here: {text}" for text in other_packages(archive, study)]
    found += [f"  archived: {name}, sha256 {archive.hashes[name]}" for name in held]
    extra = len(study.runs) - len(chosen.runs)
    if extra:
        found.append(f"besides: {extra} runs that share a block or the reference with them")
    return [printable(line) for line in found] + ([] if trusted else [f"NOTE: {UNKNOWN}"])


def other_packages(archive: Archive, study: Study) -> list[str]:
    """Return which packages are not those that the archived runs were made with."""
    here, found = machine.versions(PACKAGES), set()
    for run in study.runs:
        name = f"{layout.RESULTS}{study.name}/runs/{run.name}/summary.json"
        try:
            recorded = archive.json_of(name)["contract"]["determined_by"]["environment"]
            found |= {(p, v) for p, v in recorded.items() if p != "image" and here.get(p) != v}
        except (KeyError, TypeError, AttributeError):
            continue
    return [f"{p} {here.get(p, 'is not installed')}, recorded {v}" for p, v in sorted(found)]


def other_source(archive: Archive, checkout: Path) -> tuple[list[str], list[str]]:
    """Return which files of an archive's source are not those of a checkout: of what is run, and
    of the rest.

    Raises:
        UserError: the checkout is not a folder.
    """
    if not _is_folder("--source", checkout):
        raise UserError(f"--source {checkout}: is not a folder; name a checkout of the source")
    from lockstep.archive.source import find

    names = [name for name in archive.hashes if name.startswith(layout.SOURCE)]
    archived = {name.removeprefix(layout.SOURCE): name for name in names}
    here = find(checkout).files
    wrong = []
    for name in sorted({*archived, *here}):
        if name not in archived or name not in here:
            wrong.append(f"{name}: is only in {'the archive' if name in archived else checkout}")
            continue
        path, content = checkout / name, archive.bytes_of(archived[name])
        link = archived[name] in archive.about["links"]
        same = path.is_symlink() == link and content == (
            str(path.readlink()).encode() if link else path.read_bytes()
        )
        if not same:
            rewritten = archived[name] in archive.about["rewritten"]
            wrong.append(f"{name}: differs{' (rewritten when archived)' if rewritten else ''}")
    run = [text for text in wrong if text.startswith(RUN)]
    return run, [text for text in wrong if text not in run]


# Options --------------------------------------------------------------------------------------


def _profile(name: str, archived: Collection[str]) -> str:
    """Return a profile as Snakemake finds it from the checkout: the archive's own, or one here."""
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
        why = reason(error)
        raise UserError(f"{folder}: cannot be used, {why}; name another folder") from error
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
    variants = {next(iter(config["variants"])), *(part[1] for part in parts)}
    if config["blocks"]["paired"]:
        variants = {*config["variants"]}  # their order within a block is part of how it was run
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


# Data and images of the archive ----------------------------------------------------------------


def large(names: Collection[str]) -> list[str]:
    """Return the shards and images among the names of an archive."""
    return sorted(n for n in names if n.startswith(layout.DATA) and n.endswith((".h5", ".sif")))


def ready(names: Collection[str]) -> dict[str, str]:
    """Return the archived images that nobody built from definitions, by what they are called."""
    return {match[1]: match[0] for match in map(READY.fullmatch, names) if match}


def ready_place(image: str) -> str:
    """Return where such an image goes, below the checkout: where the config names it."""
    return f"{layout.DATA}ready/{image}.sif"


def placed(archive: Archive, config: Mapping[str, Any], package: Path) -> dict[str, str]:
    """Return the archived files of datasets and images, and where each goes below the checkout.

    A dataset's folder is called by its identity, of which the place of staged raw files is a part:
    on another machine it is another one. The workflow writes the manifest of a finished image.

    Args:
        config: of the repetition.
        package: the archived one, whose code is a part of a dataset's identity.
    """
    held = {name: name for name in large(archive.hashes)}
    images = ready(held)
    for folder in {name.rpartition("/")[0] for name in held} - {
        sif.rpartition("/")[0] for sif in images.values()
    }:
        if f"{folder}/manifest.json" in archive.hashes:
            held[f"{folder}/manifest.json"] = f"{folder}/manifest.json"
    moved = {old: new for old, new, _ in renamed(archive, config, package)}
    for name in held:
        folder, _, file = name.rpartition("/")
        held[name] = f"{moved.get(folder, folder)}/{file}"
    return held | {sif: ready_place(name) for name, sif in images.items()}


def renamed(
    archive: Archive, config: Mapping[str, Any], package: Path
) -> Iterator[tuple[str, str, str]]:
    """Yield the folders of archived datasets that are called otherwise here, with the new name and
    the identity that belongs to it.
    """
    held: dict[str, list[str]] = {}
    for folder in {n.rpartition("/")[0] for n in large(archive.hashes) if n.endswith(".h5")}:
        told = json.loads(archive.bytes_of(f"{folder}/manifest.json"))
        held.setdefault(told["name"], []).append(folder)
    for name, entry in config["datasets"].items():
        try:
            new = dataset_identity(entry, package)
        except (OSError, ImportError, SyntaxError, ValueError):
            continue  # the workflow will say what is wrong with its source
        wanted = f"{layout.DATA}datasets/{name}-{new[:12]}"
        # Of several, which one trained the runs that are repeated is not said here.
        if len(held.get(name, [])) == 1 and held[name] != [wanted]:
            yield held[name][0], wanted, new
