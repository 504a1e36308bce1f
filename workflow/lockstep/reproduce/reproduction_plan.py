"""What running an archived study again would run: said before anything is written or run."""

import copy
import re
import shlex
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep import machine
from lockstep.archive import layout
from lockstep.archive.archive_reader import Archive, printable
from lockstep.archive.layout import reproducible
from lockstep.archive.source import UNREADABLE, find, hashes
from lockstep.errors import UserError, nearest
from lockstep.study import PACKAGES, Study
from lockstep.study.identity import dataset_identity

CHECKOUT, ARCHIVED, CONFIG = "lockstep", "archived", "reproduce.json"

RUN = ("Snakefile", "workflow/", "profiles/", "containers/", "slurm")
"""What of the source is run, and must be equal to that of `--source`."""

READY = re.compile(layout.DATA + r"images/([^/]+)-ready-[0-9a-f]{12}/image\.sif")
"""An image that nobody built from definitions: the config names it."""

UNKNOWN = (
    "NOTE: this runs code that nobody here has checked, with your rights. What it writes is then "
    "compared with the records, so it proves nothing unless the archive is the published one "
    "(--sha256) or its code is that of a checkout that you trust (--source)"
)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study to be run again."""

    config: Mapping[str, Any]  # complete, of the chosen part
    # names of the runs that were chosen; variants that parity needs may come besides
    runs: Sequence[str]
    profile: str  # Snakemake's: one of the archived source, or a path
    folder: Path  # empty, or not there yet

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
    start: Sequence[str] = (),
) -> Plan:
    """Return what is to be run.

    Args:
        only: beginnings of runs' names, WORKLOAD/VARIANT/SCALE/seed-S; empty for all.
        raw: NAME=FOLDER, folders with raw files of datasets.
        start: NAME=FILE, the weights that workloads start from.

    Raises:
        UserError: nothing is chosen, a name is unknown, a file that is needed was not named, or
            the folder is not empty.
        OSError: a folder cannot be looked into.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: must be an empty folder, or not be there yet")
    chosen = copy.deepcopy(reproducible(archive.json_of(layout.STUDY)))
    names = [run.name for run in Study(chosen).runs]
    runs = [name for name in names if not only or any(_begins(name, part) for part in only)]
    for part in only:
        if not any(_begins(name, part) for name in names):
            raise UserError(f"--only {part}: no run of the study; {nearest(part, names)}")
    _keep(chosen, runs)
    for name, place in _staged("--raw", raw, chosen["datasets"], "folder"):
        chosen["datasets"][name]["raw"] = place
    named = dict(_staged("--start", start, chosen["workloads"], "file"))
    for name, entry in chosen["workloads"].items():
        if entry.get("start") and name not in named:
            raise UserError(
                f"workload {name} starts from the weights in {entry['start']}, which no archive "
                f"holds; say where that file is: --start {name}=FILE"
            )
        entry |= {"start": named[name]} if name in named else {}
    profile = _profile(profile, archive.hashes)
    made = Plan(config=chosen, runs=runs, profile=profile, folder=folder.absolute())
    for match in filter(None, map(READY.fullmatch, archive.hashes)):
        chosen["images"]["ready"][match[1]] = str(made.checkout / _ready_place(match[1]))
    return made


def _staged(
    option: str, entries: Sequence[str], names: Collection[str], kind: str
) -> Iterator[tuple[str, str]]:
    """Yield names and absolute places of what an option says is staged on this machine."""
    for entry in entries:
        name, found, path = entry.partition("=")
        if not found:
            raise UserError(f"{option} {entry}: must be NAME={kind.upper()}")
        if name not in names:
            raise UserError(f"{option} {entry}: unknown {name!r}; {nearest(name, names)}")
        if not (Path(path).is_dir() if kind == "folder" else Path(path).is_file()):
            raise UserError(f"{option} {entry}: {path} is not a {kind}")
        yield name, str(Path(path).absolute())


def lines(chosen: Plan, archive: Archive, *, trusted: bool) -> list[str]:
    """Return what a person reads before it begins.

    Args:
        trusted: the archive's sha256 or its code was compared with what the person named.
    """
    study, source = Study(chosen.config), archive.about["source"]
    images, held = chosen.config["images"], large(archive)
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
    for name, entry in chosen.config["workloads"].items():
        found += [f"{name} starts from: {entry['start']}"] if entry.get("start") else []
    if study.deployed:
        found.append("after training: exported models are made again and run, no archived one is")
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
        summary = archive.json_of(f"{layout.RESULTS}{study.name}/runs/{run.name}/summary.json")
        if summary is not None:
            recorded = summary["contract"]["determined_by"]["environment"]
            found |= {(p, v) for p, v in recorded.items() if p != "image" and here.get(p) != v}
    return [f"{p} {here.get(p, 'is not installed')}, recorded {v}" for p, v in sorted(found)]


def other_source(archive: Archive, checkout: Path) -> list[str]:
    """Return which files of an archive's source are not those of a checkout.

    Raises:
        UserError: the checkout is not a folder.
    """
    if not checkout.is_dir():
        raise UserError(f"--source {checkout}: is not a folder; name a checkout of the source")
    held = {name.removeprefix(layout.SOURCE): sha256 for name, sha256 in archive.hashes.items()
            if name.startswith(layout.SOURCE)}  # fmt: skip
    here, wrong = hashes(checkout, find(checkout).files), []
    for name in sorted({*held, *here}):
        if name not in held or name not in here:
            wrong.append(f"{name}: is only in {'the archive' if name in held else checkout}")
        elif held[name] != here[name]:
            rewritten = layout.SOURCE + name in archive.about["rewritten"]
            wrong.append(f"{name}: differs{' (rewritten when archived)' if rewritten else ''}")
    return wrong


def _profile(name: str, archived: Collection[str]) -> str:
    """Return a profile as Snakemake finds it from the checkout: the archive's own, or one here."""
    own = layout.SOURCE + name.rstrip("/")
    if any(member == own or member.startswith(f"{own}/") for member in archived):
        return name
    here = Path(name)
    return str(here.absolute()) if here.is_dir() else name


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
    if config.get("deploy") and config["deploy"]["seed"] not in config["seeds"]:
        config["deploy"] = {**config["deploy"], "seed": None}
    used = {entry["dataset"] for entry in config["workloads"].values()}
    config["datasets"] = {k: v for k, v in config["datasets"].items() if k in used}


# Data and images of the archive ---------------------------------------------------------------


def large(archive: Archive) -> list[str]:
    """Return the archived shards and images that a manifest describes."""
    described = layout.manifests(archive.hashes, archive.json_of)
    found = (name for name in archive.hashes if name.endswith((".h5", ".sif")))
    return sorted(name for name in found if name.rpartition("/")[0] in described)


def _ready_place(image: str) -> str:
    return f"{layout.DATA}ready/{image}.sif"


def data_places(
    archive: Archive, config: Mapping[str, Any], package: Path
) -> tuple[dict[str, str], dict[str, str]]:
    """Return where archived data go, below the checkout.

    Args:
        config: of the repetition.
        package: the archived one, whose code is a part of a dataset's identity.

    Returns:
        The places of shards, images and their manifests by name; and the identities of datasets
        that have another one here, by the place of the manifest: the place of staged raw files is
        a part of it.
    """
    places: dict[str, str] = {}
    identities: dict[str, str] = {}
    folders: dict[str, set[str]] = {}
    for name in large(archive):
        folder, _, file = name.rpartition("/")
        if ready := READY.fullmatch(name):
            places[name] = _ready_place(ready[1])  # the workflow writes its manifest
            continue
        places |= {name: name, f"{folder}/manifest.json": f"{folder}/manifest.json"}
        if file.endswith(".h5"):
            told = archive.json_of(f"{folder}/manifest.json")
            folders.setdefault(told["name"], {folder}).add(folder)
    for name, entry in config["datasets"].items():
        if len(folders.get(name, ())) != 1:
            continue  # of several, which one trained the runs that are repeated is not said here
        try:
            identity = dataset_identity(entry, package)
        except UNREADABLE:
            continue  # the workflow will say what is wrong with its source
        (old,), new = folders[name], f"{layout.DATA}datasets/{name}-{identity[:12]}"
        if old != new:
            moved = {n for n in places if n.startswith(f"{old}/")}
            places |= {n: new + n.removeprefix(old) for n in moved}
            identities[f"{new}/manifest.json"] = identity
    return places, identities
