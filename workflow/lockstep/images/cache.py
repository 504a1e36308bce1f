"""The machine-wide cache of images: a folder an identity, whole or absent.

`CACHE/NAME-IDENTITY/` holds `image.sif` and `manifest.json`. The manifest says what the image is,
with the sha256 of the SIF; it is the same for every build of an identity, as the SIF is.
"""

import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from lockstep import files, lock
from lockstep.errors import UserError
from lockstep.images import sif
from lockstep.link import link_or_copy

SIF = "image.sif"
MANIFEST = "manifest.json"


def alone(folder: Path) -> AbstractContextManager[bool]:
    """Hold the lock of a cache entry: a second workflow waits until the first has built it."""
    path = folder.with_name(f".{folder.name}.lock")
    return lock.held(path, waiting=f"{folder.name} is being built by another process")


def damage(folder: Path) -> str | None:
    """Return what is wrong with an image's folder, or None if it is whole; reads all of it."""
    if not folder.is_dir():
        return "not there"
    try:
        manifest = files.read_json(folder / MANIFEST)
        expected = manifest["sif"]["sha256"]
    except (UserError, KeyError, TypeError) as error:
        return str(error)
    path = folder / SIF
    if not path.is_file():
        return f"{path} is missing"
    if path.stat().st_size != manifest["sif"]["size"]:
        return f"{path} has {path.stat().st_size} bytes instead of {manifest['sif']['size']}"
    found = files.sha256_file(path)
    return (
        None
        if found == expected
        else f"{path} has sha256 {found[:12]}… instead of {expected[:12]}…"
    )


def place(source: Path, target: Path, how: str) -> None:
    """Bring an image from the cache to where a study expects it, the manifest last.

    Args:
        how: `hardlink` (a copy where the file systems differ), `copy` or `symlink`.
    """
    target.mkdir(parents=True, exist_ok=True)
    temporary = target / f".{SIF}.{os.getpid()}.tmp"
    files.remove(temporary)
    try:
        if how == "symlink":
            temporary.symlink_to((source / SIF).absolute())
        elif how == "hardlink":
            link_or_copy(source / SIF, temporary)
        else:
            shutil.copyfile(source / SIF, temporary)
            files.sync_file(temporary)
        temporary.replace(target / SIF)
    finally:
        files.remove(temporary)
    files.write_bytes(target / MANIFEST, (source / MANIFEST).read_bytes())


def check(image: Path, manifest: dict[str, Any]) -> None:
    """Find a SIF that is not the manifest's, in milliseconds (see `sif.fingerprint`).

    Raises:
        UserError: it is missing, cut short or another one.
    """
    if sif.fingerprint(image) != manifest["sif"]["fingerprint"]:
        raise UserError(
            f"{image}: is not the image that {MANIFEST} beside it describes (damaged or replaced); "
            f"remove {image.parent} and run the stage images again"
        )
