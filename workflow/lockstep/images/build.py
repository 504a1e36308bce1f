"""Builds an image: in a temporary folder, smoke-tested, then moved into the cache as a whole."""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.errors import UserError
from lockstep.images import cache, enter, host, root, sif, smoke
from lockstep.images.host import GIB
from lockstep.images.identity import (
    DEBIAN,
    DOCKER,
    EPOCH,
    MINIMUM_DRIVER,
    SHARED,
    SQUASHFS,
    Recipe,
    cuda_facts,
    locked_versions,
)
from lockstep.images.mirror import host_mirror
from lockstep.images.settings import Settings
from lockstep.images.workspace import run, workspace

# Peak of the build folder, and the image, in bytes; measured (docs/containers.md), rounded up.
NEEDED = {"base": (2 * GIB, GIB), "torch": (14 * GIB, 5 * GIB), "jax": (12 * GIB, 4 * GIB)}
CAUSES = {  # what a failed build's output holds: what it means
    "DO NOT MATCH THE HASHES": "a package is not the one that the lock pins; if the package index "
    "or its mirror is not to blame, renew the lock (containers/README.md)",
    "does not have the versions of the lock": "the Debian mirror has moved on since the lock was "
    "made; renew the lock (containers/lock.sh debian, a minute; the images get another identity), "
    "or set images.debian_mirror to an archive of Debian's states, at the time of the lock",
    "lists of packages could not be fetched": "the Debian mirror does not answer as one; build on "
    "a node with a network, or set images.debian_mirror",
    "No space left on device": "the disk is full; free some, or set images.build_folder",
    "Disk quota exceeded": "a quota is reached; set images.build_folder to another folder",
    "CERTIFICATE_VERIFY_FAILED": "a proxy inspects TLS here: set images.ca_bundle to the "
    "certificates that this host trusts",
    # pip says these before it says that it found no distribution.
    **dict.fromkeys(
        ("Temporary failure", "Name or service not known", "Network is unreachable"),
        "there is no network, or not one that leads there; build on a node with one, set the "
        "mirrors (images.package_index, images.debian_mirror), or name finished images under "
        "images.ready",
    ),
    "Failed to establish a new connection": "the package index does not answer; build on a node "
    "with a network, or set images.package_index",
    "No matching distribution": "the package index does not have what the lock pins; set "
    "images.package_index to one that has",
    "userns": "python -m lockstep doctor says what user namespaces lack here",
}


def ensure(recipe: Recipe, settings: Settings) -> Path:
    """Return the image's folder in the cache, built if it is not there or is damaged.

    Raises:
        UserError: it cannot be built here; says why and the remedy. Nothing partial is left.
    """
    folder = settings.cache / recipe.folder
    # First without the lock, which takes more than to read: the cache may be another user's.
    if cache.damage(folder, recipe.identity) is None:
        return folder
    with cache.alone(folder):
        problem = cache.damage(folder, recipe.identity)
        if problem is None:
            return folder
        if folder.exists():
            print(f"lockstep: {problem}; building {recipe.folder} again", file=sys.stderr)
            files.remove(folder)
        parent = ensure(recipe.parent, settings) if recipe.parent else None
        _check_host(recipe, settings)
        grown, _ = NEEDED[recipe.name]
        purpose = f"building the image {recipe.name}"
        with (
            workspace(settings.build_folder, needed=grown, purpose=purpose) as work,
            files.room_for(work),
        ):
            _build(recipe, settings, parent, work)
            made = work / "made"
            made.mkdir()
            print(f"lockstep: hashing {recipe.folder}", file=sys.stderr)
            hashes = sif.normalise(work / "raw.sif", made / cache.SIF, epoch=EPOCH)
            (work / "raw.sif").unlink()
            tested = smoke.test(
                recipe.name,
                made / cache.SIF,
                work,
                lock=recipe.python_lock,
                scripts=recipe.definition.parent / "smoke",
                minimum_driver=MINIMUM_DRIVER.get(recipe.cuda or ""),
            )
            files.write_json(
                made / cache.MANIFEST,
                manifest(recipe, _sif_facts(made / cache.SIF, *hashes), tested),
            )
            with files.atomic(folder) as temporary:
                temporary.mkdir()
                for name in (cache.SIF, cache.MANIFEST):
                    shutil.move(made / name, temporary / name)
    return folder


def manifest(recipe: Recipe, file: dict[str, Any], tested: dict[str, Any]) -> dict[str, Any]:
    """Return what there is to know of an image; equal for every build of one identity.

    Args:
        recipe: what it was built from.
        file: what there is to know of the SIF.
        tested: what its smoke test found in it.
    """
    return {
        "schema": cache.SCHEMA,
        "name": recipe.name,
        "cuda_generation": recipe.cuda,
        "identity": recipe.identity,
        "determined_by": recipe.determined_by(),
        "sif": file,
        "cuda": cuda_facts(recipe.cuda, locked_versions(recipe.python_lock)),
        "python": tested["python"],
        "packages": tested["packages"],
        "debian": _debian_versions(recipe.debian_lock),
    }


def finished_manifest(
    name: str, identity: str, image: Path, tested: dict[str, Any]
) -> dict[str, Any]:
    """Return the same of an image that was built elsewhere."""
    found = cuda_facts(None, tested["packages"])
    runtime = found.get("runtime", "").split(".")[0]
    generation = f"cuda{runtime}" if f"cuda{runtime}" in MINIMUM_DRIVER else None
    return {
        "schema": cache.SCHEMA,
        "name": name,
        "cuda_generation": generation,
        "identity": identity,
        "determined_by": {"ready": str(image)},
        "sif": _sif_facts(image, files.sha256_file(image), sif.root_sha256(image)),
        "cuda": cuda_facts(generation, tested["packages"]),
        "python": tested["python"],
        "packages": tested["packages"],
        "debian": tested["debian"],
    }


def _sif_facts(image: Path, sha256: str, root_sha256: str) -> dict[str, Any]:
    return {
        "sha256": sha256,
        "size": image.stat().st_size,
        "fingerprint": sif.fingerprint(image),
        "root_sha256": root_sha256,
    }


def _debian_versions(lock: Path) -> dict[str, str]:
    lines = lock.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def _check_host(recipe: Recipe, settings: Settings) -> None:
    _, image = NEEDED[recipe.name]
    host.require(
        host.apptainer(),
        host.user_namespaces(),
        host.subordinate_ids(),
        host.build_folder(settings.build_folder),
        host.space(settings.cache, image, f"keeping the image {recipe.name}"),
    )
    if recipe.cuda and enter.gpus_here():
        host.require(host.driver(recipe.cuda, MINIMUM_DRIVER[recipe.cuda]))


def _build(recipe: Recipe, settings: Settings, parent: Path | None, work: Path) -> None:
    """Run Apptainer; leaves `raw.sif` in `work`."""
    context = work / "context"
    context.mkdir()
    containers = recipe.definition.parent
    for name in SHARED:
        shutil.copyfile(containers / name, context / name)
    shutil.copyfile(recipe.python_lock, context / "requirements.txt")
    shutil.copyfile(recipe.debian_lock, context / "debian.txt")
    if settings.ca_bundle:
        shutil.copyfile(settings.ca_bundle, context / "ca.crt")
    if settings.package_index:
        (context / "pip.conf").write_text(f"[global]\nindex-url = {settings.package_index}\n")
    # Relative names, since the definition with its arguments becomes part of the image.
    if parent:
        arguments = {"bootstrap": "localimage", "from": "parent.sif"}
        (work / "parent.sif").symlink_to(parent / cache.SIF)
    elif recipe.start == DEBIAN:
        arguments = {"bootstrap": "oci", "from": "root"}
    else:
        arguments = {"bootstrap": "docker", "from": recipe.start.removeprefix(DOCKER)}
    mirror = settings.debian_mirror
    if recipe.start == DEBIAN:
        mirror = mirror or host_mirror()
    if mirror:
        source = f"deb {mirror} {root.SUITE} main\n"
        (context / "sources.list").write_text(source)
    if mirror and not parent and recipe.start == DEBIAN:
        print(f"lockstep: making a Debian root file system from {mirror}", file=sys.stderr)
        root.make(work / "root", mirror)
    print(f"lockstep: building {recipe.folder}", file=sys.stderr)
    (work / "tmp").mkdir()
    command = ["apptainer", "build", "--fakeroot", "--disable-cache", "--force"]
    command += ["--mksquashfs-args", SQUASHFS, "--bind", f"{context}:/mnt"]
    # Otherwise these two are the host's, which no step of ours shall touch.
    (work / "scratch").mkdir()
    command += ["--bind", f"{work / 'scratch'}:/tmp", "--bind", f"{work / 'scratch'}:/var/tmp"]
    command += [part for k, v in arguments.items() for part in ("--build-arg", f"{k}={v}")]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("APPTAINER", "SINGULARITY"))},
        **{
            k: v
            for k, v in os.environ.items()
            if k.startswith(("APPTAINER_DOCKER", "APPTAINER_NOHTTPS"))
        },
        "APPTAINER_TMPDIR": str(work / "tmp"),
        "SOURCE_DATE_EPOCH": str(EPOCH),
    }
    log = work / "build.log"
    status = run([*command, "raw.sif", str(recipe.definition)], work, environment, log)
    text = log.read_text(errors="replace")
    sys.stderr.write(text)
    if status:
        tail = "\n".join(text.strip().splitlines()[-12:])
        raise UserError(f"image {recipe.name} could not be built: {cause_of(text)}\n{tail}")


def cause_of(output: str) -> str:
    """Return what made a build fail, by what it said."""
    known = (meaning for sign, meaning in CAUSES.items() if sign in output)
    return next(known, "Apptainer ended with")
