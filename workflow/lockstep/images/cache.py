"""The machine-wide cache of images: a folder an identity, whole or absent.

`CACHE/NAME-IDENTITY/` holds `image.sif` and `manifest.json`. The manifest says what the image is,
with the sha256 of the SIF; it is the same for every build of an identity, as the SIF is.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from lockstep import files, lock
from lockstep.errors import UserError
from lockstep.images import host, sif
from lockstep.link import link_or_copy

SCHEMA = "lockstep-image/1"
SIF = "image.sif"
MANIFEST = "manifest.json"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a cache entry: a second workflow waits until the first has built it.

    What one that was killed had half brought here is removed.

    Raises:
        UserError: nothing can be written there.
    """
    path = folder.with_name(f".{folder.name}.lock")
    waiting = f"{folder.name} is being built by another process"
    with ExitStack() as stack:
        try:
            stack.enter_context(lock.held(path, waiting=waiting))
        except OSError as error:
            raise UserError(
                f"{folder}: no such image, and none can be put there "
                f"({(error.strerror or str(error)).lower()}); set images.cache to a folder of yours"
            ) from error
        for left in folder.parent.glob(f".{folder.name}.*.tmp"):
            files.remove(left)
        yield


def damage(folder: Path, identity: str) -> str | None:
    """Return what is wrong with an image's folder, or None if it is whole; reads all of it.

    Args:
        identity: of the image that it is to hold.
    """
    if not folder.is_dir():
        return "not there"
    try:
        return _damage(folder, identity)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"


def _damage(folder: Path, identity: str) -> str | None:
    path = folder / SIF
    try:
        manifest = files.read_json(folder / MANIFEST)
        expected = manifest["sif"]["sha256"]
        told = (manifest["schema"], manifest["identity"], manifest["sif"]["fingerprint"])
    except (UserError, KeyError, TypeError) as error:
        return f"{folder / MANIFEST}: {error}"
    if not path.is_file():
        return f"{path} is missing"
    if path.stat().st_size != manifest["sif"]["size"]:
        return f"{path} has {path.stat().st_size} bytes instead of {manifest['sif']['size']}"
    if told != (SCHEMA, identity, sif.fingerprint(path)):
        return f"{folder / MANIFEST} is not that of this image"
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

    Raises:
        UserError: there is no space for a copy.
    """
    target.mkdir(parents=True, exist_ok=True)
    temporary = target / f".{SIF}.{os.getpid()}.tmp"
    files.remove(temporary)
    image = (source / SIF).stat()
    if how == "copy" or (how == "hardlink" and image.st_dev != target.stat().st_dev):
        remedy = "free some, or set images.place to symlink, or paths.data to another folder"
        need = f"a copy of {source.name}"
        host.require(host.space(target, image.st_size, need, remedy=remedy))
    try:
        with files.room_for(target / SIF):
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
