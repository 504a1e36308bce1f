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
from lockstep.archive.source import find
from lockstep import machine
from lockstep.errors import UserError, nearest
from lockstep.study import PACKAGES, Study
from lockstep.study.identity import dataset_identity

CHECKOUT, ARCHIVED, CONFIG = "lockstep", "archived", "reproduce.json"

RUN = ("Snakefile", "workflow/", "profiles/", "containers/", "slurm")
"""What of the source is run, and must be equal to that of `--source`."""

READY = re.compile(layout.DATA + r"images/([^/]+)-ready-[0-9a-f]{12}/image\.sif")

UNKNOWN = (
    "NOTE: this runs code that nobody here has checked, with your rights. What it writes is then "
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
        snakemake = [sys.executable, "-m", "snakemake", "report"]
        return [*snakemake, "--profile", self.profile, "--configfile", CONFIG]


def plan(
    archive: Archive,
    *,
    folder: Path,
    profile: str,
    only: Sequence[str] = (),
    raw: Sequence[str] = (),
) -> Plan:
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
    profile = _profile(profile, archive.hashes)
    made = Plan(config=chosen, runs=runs, profile=profile, folder=folder.absolute())
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
    found = [
        f"archive: {archive.path}, sha256 {archive.sha256 or 'of no file: an unzipped folder'}",
        f"study {study.name}: {len(chosen.runs)} of its runs, in {chosen.folder}",
        f"code: the archive's, commit {source['commit'] or 'unknown'} ({source['note']})",
        f"command, in {chosen.checkout}: {shlex.join(chosen.command)}",
        f"datasets: {names}, {'archived shards, below' if shards else 'obtained by the workflow'}",
    ]
    for name, entry in chosen.config["datasets"].items():
        found += [f"  raw files of {name}: {entry['raw']}"] if entry["raw"] else []
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
    return [*map(printable, found), *([] if trusted else [UNKNOWN])]


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
    held = {name.removeprefix(layout.SOURCE): name for name in archive.hashes
            if name.startswith(layout.SOURCE)}  # fmt: skip
    here, wrong = {*find(checkout).files}, []
    for name in sorted({*held, *here}):
        if name not in held or name not in here:
            wrong.append(f"{name}: is only in {'the archive' if name in held else checkout}")
        elif archive.bytes_of(held[name]) != _content(checkout / name):
            rewritten = held[name] in archive.about["rewritten"]
            wrong.append(f"{name}: differs{' (rewritten when archived)' if rewritten else ''}")
        elif (held[name] in archive.about["links"]) != (checkout / name).is_symlink():
            wrong.append(f"{name}: is a link on one side only")
    run = [text for text in wrong if text.startswith(RUN)]
    return run, [text for text in wrong if text not in run]


def _content(path: Path) -> bytes:
    return str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()


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
    workloads, variants, scales, seeds = map(set, zip(*(run.split("/") for run in runs)))
    if config["blocks"]["paired"]:
        variants |= {*config["variants"]}  # their order in a block is part of how it was run
    variants.add(next(iter(config["variants"])))
    for key, kept in (("workloads", workloads), ("variants", variants)):
        config[key] = {name: entry for name, entry in config[key].items() if name in kept}
    config["scales"] = [scale for scale in config["scales"] if scale in scales]
    # Parity is traced with the first seed, which may be another one now: then its traces are not
    # those of the archive, and are not compared.
    config["seeds"] = [seed for seed in config["seeds"] if f"seed-{seed}" in seeds]
    used = {entry["dataset"] for entry in config["workloads"].values()}
    config["datasets"] = {k: v for k, v in config["datasets"].items() if k in used}


# Data and images of the archive ---------------------------------------------------------------


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

    Args:
        config: of the repetition.
        package: the archived one, whose code is a part of a dataset's identity.
    """
    images = {sif: ready_place(name) for name, sif in ready(archive.hashes).items()}
    moved = {old: new for old, new, _ in renamed(archive, config, package)}
    places = {}
    for name in large(archive.hashes):
        folder, _, file = name.rpartition("/")
        places[name] = f"{moved.get(folder, folder)}/{file}"
        manifest = f"{folder}/manifest.json"
        if manifest in archive.hashes and name not in images:  # else the workflow writes it
            places[manifest] = f"{moved.get(folder, folder)}/manifest.json"
    return places | images


def renamed(
    archive: Archive, config: Mapping[str, Any], package: Path
) -> Iterator[tuple[str, str, str]]:
    """Yield the folders of archived datasets that are called otherwise here, with the new name and
    the identity that belongs to it: the place of staged raw files is a part of that.
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
