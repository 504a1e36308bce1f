"""Which data and images of an archive a repetition uses, and where it finds them.

A dataset's folder is called by its identity, of which the place of staged raw files is a part: on
another machine it is another one. So archived shards go to where the repetition looks for them.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from lockstep.archive import layout
from lockstep.archive.opened import Opened
from lockstep.study.identity import dataset_identity

LARGE = (".h5", ".sif")
READY = re.compile(layout.DATA + r"images/([^/]+)-ready-[0-9a-f]{12}/image\.sif")


def large(names: Iterable[str]) -> list[str]:
    """Return the shards and images among the names of an archive."""
    return sorted(n for n in names if n.startswith(layout.DATA) and n.endswith(LARGE))


def used(names: Collection[str]) -> set[str]:
    """Return the files of datasets and images that are in the archive: a manifest alone is none."""
    folders = {name.rpartition("/")[0] for name in large(names)}
    manifests = {f"{folder}/manifest.json" for folder in folders}
    return {*large(names), *(manifests & {*names})}


def ready(names: Iterable[str]) -> dict[str, str]:
    """Return the archived images that nobody built from definitions, by what they are called."""
    return {match[1]: match[0] for match in map(READY.fullmatch, names) if match}


def ready_place(image: str) -> str:
    """Return where such an image goes, below the checkout: where the config names it."""
    return f"{layout.DATA}ready/{image}.sif"


def moved(archive: Opened, config: Mapping[str, Any], package: Path) -> dict[str, tuple[str, str]]:
    """Return folders of archived datasets that are called otherwise now, with their identities.

    Args:
        config: of the repetition.
        package: the archived one, whose code is a part of a dataset's identity.
    """
    held: dict[str, list[str]] = {}
    for folder in {n.rpartition("/")[0] for n in large(archive.files) if n.endswith(".h5")}:
        told = json.loads(archive.reader.bytes_of(f"{folder}/manifest.json"))
        held.setdefault(told["name"], []).append(folder)
    found = {}
    for name, entry in config["datasets"].items():
        try:
            new = dataset_identity(entry, package)
        except (OSError, ImportError, SyntaxError, ValueError):
            continue  # the workflow will say what is wrong with its source
        wanted = f"{layout.DATA}datasets/{name}-{new[:12]}"
        # Of several, which one trained the runs that are repeated is not said here.
        if len(held.get(name, [])) == 1 and held[name] != [wanted]:
            found[held[name][0]] = wanted, new
    return found
