"""`python -m lockstep doctor`: will SLURM and containers work here? A line a finding, and a fix."""

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lockstep.cluster import examine
from lockstep.errors import UserError
from lockstep.images import build, host, root
from lockstep.images.identity import DEBIAN, MINIMUM_DRIVER
from lockstep.images.settings import cache_folder
from lockstep.study.run import Scale

MEMORY_KINDS = {"tmpfs", "ramfs"}


def main(config: Path | None) -> int:
    """Print what was found; 0 if studies can run here, 1 if something must be done.

    Args:
        config: a study's config, for what it asks for; None to look at everything, images too.
    """
    status = 0
    looked_at = itertools.chain(_cluster(config), _packages(config), findings(_section(config)))
    for finding in looked_at:
        if finding.remedy is None:
            print(f"ok    {finding.subject}: {finding.found}")
            continue
        print(f"{'FAIL' if finding.fatal else 'warn'}  {finding.subject}: {finding.found}")
        print(f"      fix: {finding.remedy}")
        status = 1 if finding.fails else status
    return status


def _cluster(config: Path | None) -> Iterator[host.Finding]:
    """Look at SLURM, for the scales of a study."""
    if config is None:
        return examine.findings([Scale(1, 1)], threads=1, alone=False, images=False)
    from lockstep.study import config as study_config

    asked = study_config.load(config)
    return examine.findings(
        [Scale.parse(scale) for scale in asked["scales"]],
        threads=asked["threads"],
        alone=not asked["blocks"]["share_nodes"],
        images=asked["images"]["enabled"],
    )


def _packages(config: Path | None) -> Iterator[host.Finding]:
    """Look at this Python, for the stages of a study that run in it."""
    if config is None:
        return
    from lockstep.study import Study, packages
    from lockstep.study import config as study_config

    study = Study(study_config.load(config))
    missing, staged = packages.lacking(study), packages.cannot_download(study)
    if missing:
        found = f"this Python lacks {', '.join(missing)}, which the stages import"
        yield host.Finding(subject="packages", found=found, remedy=packages.REMEDY)
    if staged:
        found = f"this Python lacks {packages.DOWNLOADS}, which downloads {', '.join(staged)}"
        yield host.Finding(subject="packages", found=found, remedy=packages.DOWNLOADS_REMEDY)
    if not missing and not staged:
        yield host.Finding(subject="packages", found="what runs in this Python has all it imports")


def _section(config: Path | None) -> dict[str, Any]:
    """Return the images section; a host without YAML can still be examined by the defaults."""
    if config is None:
        return {
            "enabled": True,
            "base": DEBIAN,
            "cuda": "cuda12",
            "build_folder": None,
            "cache": None,
            "debian_mirror": None,
        }
    from lockstep.study import config as study_config

    return study_config.load(config)["images"]


def findings(section: dict[str, Any]) -> Iterator[host.Finding]:
    """Yield one finding on images after the other; none is fatal to a study that has no images."""
    for finding in _of_images(section):
        yield finding if section["enabled"] else replace(finding, fatal=False)


def _of_images(section: dict[str, Any]) -> Iterator[host.Finding]:
    """Yield those that explain others first."""
    folder = Path(section["build_folder"] or tempfile.gettempdir())
    yield host.apptainer()
    yield host.user_namespaces()
    yield host.subordinate_ids()
    yield host.fuse()
    if not folder.is_dir():
        yield host.Finding(
            subject=f"build folder {folder}",
            found="is no folder",
            remedy="make it, or set images.build_folder to another",
        )
    else:
        yield host.build_folder(folder)
        # Two images at once: Snakemake builds both frameworks' as soon as it has two cores.
        grown = sum(build.NEEDED[name][0] for name in ("torch", "jax"))
        yield host.space(folder, grown, "building both framework images at once")
        yield _memory(folder, grown)
    kept = sum(image for _, image in build.NEEDED.values())
    yield host.space(cache_folder(section["cache"]), kept, "keeping the images")
    if section["base"] == DEBIAN:
        yield _debian(section["debian_mirror"])
    yield host.driver(section["cuda"], MINIMUM_DRIVER[section["cuda"]])


def _debian(mirror: str | None) -> host.Finding:
    """Can the base image's root file system be made from packages?"""
    try:
        root.check_tools()
        mirror = mirror or root.host_mirror()
    except UserError as error:
        found, _, remedy = str(error).partition("; ")
        return host.Finding(subject="Debian root", found=found, remedy=remedy)
    return host.Finding(subject="Debian root", found=f"mmdebstrap, from {mirror}")


def _memory(folder: Path, needed: int) -> host.Finding:
    """A /tmp in memory takes what it holds from the jobs."""
    kind, _ = host.mount_of(folder)
    subject = f"memory behind {folder}"
    if kind not in MEMORY_KINDS:
        return host.Finding(subject=subject, found="none, it is on a disk")
    return host.Finding(
        subject=subject,
        found=f"{kind}: a build takes up to {needed / host.GIB:.0f} GiB of memory there",
        remedy="set images.build_folder (or TMPDIR) to a folder on a disk",
        fatal=False,
    )
