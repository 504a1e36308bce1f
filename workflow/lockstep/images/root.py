"""A minimal Debian root file system from the host's own package mirror, as an OCI layout."""

import hashlib
import json
import os
import platform
import shutil
import stat
import tempfile
from pathlib import Path

from lockstep.errors import UserError
from lockstep.images.identity import EPOCH, SUITE
from lockstep.images.workspace import run

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def check_tools() -> None:
    """Make sure that a root file system can be made here.

    Raises:
        UserError: mmdebstrap is missing.
    """
    if shutil.which("mmdebstrap") is None:
        raise UserError(
            "mmdebstrap is not installed, which images.base: debian needs; install it "
            "(apt-get install mmdebstrap), or set images.base to docker:NAME@sha256:DIGEST"
        )


def make(folder: Path, mirror: str) -> None:
    """Write a minimal Debian with apt as an OCI layout.

    Raises:
        UserError: mmdebstrap is missing, or cannot make it.
    """
    check_tools()
    folder.mkdir()
    tar = folder / "root.tar"
    command = ["mmdebstrap", "--quiet", "--variant=apt", "--format=tar", SUITE, "-", mirror]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH), "TMPDIR": _open_folder(folder)}
    log = folder.with_suffix(".log")
    if run(command, folder, environment, log, output=tar):
        said = log.read_text(errors="replace").strip()
        raise UserError(
            f"{' '.join(command)}: failed:\n{said}\nIs the mirror one of Debian "
            "that has this suite (images.debian_mirror), and has this user entries in /etc/subuid "
            "(python -m lockstep doctor)?"
        )
    layer = _blob(folder, tar)
    config = _text_blob(
        folder,
        {
            "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        },
    )
    manifest = _text_blob(
        folder,
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, **config},
            "layers": [{"mediaType": LAYER, **layer}],
        },
    )
    index = {"schemaVersion": 2, "manifests": [{"mediaType": MANIFEST, **manifest}]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _open_folder(folder: Path) -> str:
    """Return a folder for mmdebstrap to work in: as another user id, it must be able to enter."""
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in folder.parents):
        folder.chmod(0o1777)
        return str(folder)
    return tempfile.gettempdir()


def _blob(folder: Path, path: Path) -> dict[str, str | int]:
    """Move a file to where its hash says, and return what refers to it."""
    with open(path, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    target = folder / "blobs" / "sha256" / digest
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    return {"digest": f"sha256:{digest}", "size": target.stat().st_size}


def _text_blob(folder: Path, value: object) -> dict[str, str | int]:
    path = folder / "blob"
    path.write_text(json.dumps(value, sort_keys=True))
    return _blob(folder, path)
