"""A minimal Debian root file system from the host's own package mirror, as an OCI layout."""

import hashlib
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

from lockstep.errors import UserError
from lockstep.images.identity import EPOCH, SUITE

APT = Path("/etc/apt")
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def host_mirror(apt: Path = APT) -> str:
    """Return the archive that the host's apt uses first.

    Raises:
        UserError: the host has no apt, or its apt knows no archive.
    """
    texts = [path.read_text() for path in sorted(apt.glob("sources.list.d/*.sources"))]
    old = [apt / "sources.list", *sorted(apt.glob("sources.list.d/*.list"))]
    texts += [path.read_text() for path in old if path.is_file()]
    for text in texts:
        found = re.search(r"^URIs:\s*(\S+)|^deb\s+(?:\[[^]]*\]\s+)?(\S+)", text, re.MULTILINE)
        if found:
            return found[1] or found[2]
    raise UserError(
        f"{apt}: names no package archive, so no Debian root can be made from it; set "
        "images.debian_mirror, or images.base to a container image (docker:NAME@sha256:DIGEST)"
    )


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
    with open(tar, "wb") as stream:
        answer = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.PIPE,
            text=True,
        )
    if answer.returncode:
        raise UserError(
            f"{' '.join(command)}: failed:\n{answer.stderr.strip()}\nIs the mirror one of Debian "
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
