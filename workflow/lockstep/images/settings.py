"""The `images` section of a study's config, resolved for this machine."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.errors import UserError

CA_BUNDLES = (  # where Debian, Red Hat and SUSE keep the certificates that a host trusts
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How images are built and entered here; none of it changes what an image holds.

    Attributes:
        cache: the machine-wide cache of built images.
        build_folder: where an image grows; a local disk.
        ca_bundle: certificates for downloads during a build, or None.
        package_index: mirror of Python's package index, or None.
        debian_mirror: archive of Debian packages, or None for the host's own.
        place: how an image comes from the cache to a study: `hardlink`, `copy` or `symlink`.
    """

    cache: Path
    build_folder: Path
    ca_bundle: Path | None
    package_index: str | None
    debian_mirror: str | None
    place: str


def resolve(section: Mapping[str, Any]) -> Settings:
    """Return the settings of a config's `images` section.

    Raises:
        UserError: a file or folder that is named does not exist.
    """
    bundle = section["ca_bundle"]
    if bundle is None:
        bundle = next((path for path in CA_BUNDLES if Path(path).is_file()), None)
    elif not Path(bundle).is_file():
        raise UserError(f"images.ca_bundle is {bundle!r}, which is no file")
    build_folder = section["build_folder"] or tempfile.gettempdir()
    if not Path(build_folder).is_dir():
        raise UserError(
            f"images.build_folder is {build_folder!r}, which is no folder; make it or name another"
        )
    return Settings(
        cache=cache_folder(section["cache"]),
        build_folder=Path(build_folder).resolve(),
        ca_bundle=Path(bundle).resolve() if bundle else None,
        package_index=section["package_index"],
        debian_mirror=section["debian_mirror"],
        place=section["place"],
    )


def cache_folder(configured: str | None) -> Path:
    """Return the cache: as configured, from LOCKSTEP_IMAGE_CACHE, or the user's own."""
    folder = configured or os.environ.get("LOCKSTEP_IMAGE_CACHE")
    if folder:
        return Path(folder).expanduser().absolute()
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(caches) / "lockstep" / "images"
