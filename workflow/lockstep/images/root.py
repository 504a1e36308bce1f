"""A minimal Debian root file system from the host's own package mirror, as an OCI layout."""

import hashlib
import json
import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lockstep.errors import UserError
from lockstep.images.identity import EPOCH, SUITE
from lockstep.images.workspace import run

APT = Path("/etc/apt")
SUITES = {
    *("oldoldstable", "oldstable", "stable", "testing", "unstable", "sid"),
    *("bullseye", "bookworm", "trixie", "forky", "duke"),
}
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def host_mirror(apt: Path = APT) -> str:
    """Return the first archive of Debian that the host's apt uses.

    Others that it may use (of Docker, of a vendor) have other components, suites or keys.

    Raises:
        UserError: the host has no apt, or its apt knows no archive of Debian.
    """
    own = [apt / "sources.list", apt / "sources.list.d" / "debian.sources"]
    more = [path for kind in ("sources", "list") for path in apt.glob(f"sources.list.d/*.{kind}")]
    for path in (*own, *sorted(set(more) - set(own))):
        if path.is_file():
            for source in _sources(path):
                if source.is_debian:
                    return source.uri
    raise UserError(
        f"{apt}: names no archive of Debian, so no Debian root can be made from it; set "
        "images.debian_mirror, or images.base to a container image (docker:NAME@sha256:DIGEST)"
    )


@dataclass(frozen=True, kw_only=True)
class _Source:
    """An archive as apt's lists name it."""

    uri: str
    suites: list[str]
    components: list[str]
    key: str

    @property
    def is_debian(self) -> bool:
        """Whether it is one of Debian's packages, by all that the list says."""
        return (
            "main" in self.components
            and not SUITES.isdisjoint(self.suites)
            and (not self.key or "debian-archive" in self.key)
        )


def _sources(path: Path) -> Iterator[_Source]:
    """Yield the archives of a list, in either of apt's two formats."""
    text = re.sub(r"^[ \t]*#.*\n?", "", path.read_text(errors="replace"), flags=re.MULTILINE)
    if path.suffix == ".list":
        for line in text.splitlines():
            found = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s*)?(\S+)\s+(\S+)\s*(.*)", line)
            if found:
                options, uri, suite, components = found.groups(default="")
                key = re.search(r"signed-by=(\S+)", options)
                yield _Source(
                    uri=uri,
                    suites=[suite],
                    components=components.partition("#")[0].split(),
                    key=key[1] if key else "",
                )
        return
    for stanza in re.split(r"\n\s*\n", text):
        fields = {
            name.lower(): value
            for name, value in re.findall(
                r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", stanza, re.MULTILINE
            )
        }
        uris = fields.get("uris", "").split()
        if uris and "deb" in fields.get("types", "").split() and fields.get("enabled") != "no":
            yield _Source(
                uri=uris[0],
                suites=fields.get("suites", "").split(),
                components=fields.get("components", "").split(),
                key=fields.get("signed-by", ""),
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
