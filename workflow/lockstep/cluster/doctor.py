"""`python -m lockstep doctor`: will SLURM and containers work here? A line a finding, and a fix."""

import itertools
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockstep.cluster import examine
from lockstep.errors import UserError
from lockstep.images import build, host, root, study_image
from lockstep.images.identity import DEBIAN, MINIMUM_DRIVER, NAMES
from lockstep.images.mirror import host_mirror
from lockstep.images.settings import cache_folder
from lockstep.study.run import Scale

if TYPE_CHECKING:
    from lockstep.study import Study

MEMORY_KINDS = {"tmpfs", "ramfs"}
DEFAULTS = {  # of the images section, for a host without YAML
    "enabled": True,
    "base": DEBIAN,
    "cuda": "cuda12",
    "build_folder": None,
    "cache": None,
    "debian_mirror": None,
    "ready": dict.fromkeys(NAMES),
}


def main(*configs: Path) -> int:
    """Print what was found; 0 if studies can run here, 1 if something must be done.

    Args:
        configs: a study's config, for what it asks for, and others that change it; without one
            everything is looked at, images too.
    """
    status = 0
    study = _study(*configs) if configs else None
    looked_at = itertools.chain(_cluster(study), _packages(study), _images(study))
    for finding in looked_at:
        if finding.remedy is None:
            print(f"ok    {finding.subject}: {finding.found}")
            continue
        print(f"{'FAIL' if finding.fatal else 'warn'}  {finding.subject}: {finding.found}")
        print(f"      fix: {finding.remedy}")
        status = 1 if finding.fails else status
    return status


def _study(*configs: Path) -> "Study":
    """Return the study of a config; a host without YAML can still be examined without one."""
    from lockstep.study import Study
    from lockstep.study import config as study_config

    return Study(study_config.load(*configs))


def _cluster(study: "Study | None") -> Iterator[host.Finding]:
    """Look at SLURM, for the scales of a study."""
    if study is None:
        return examine.findings([Scale(1, 1)], threads=1, alone=False, images=False)
    asked = study.config
    return examine.findings(
        [Scale.parse(scale) for scale in asked["scales"]],
        threads=asked["threads"],
        alone=not asked["blocks"]["share_nodes"],
        images=asked["images"]["enabled"],
    )


def _packages(study: "Study | None") -> Iterator[host.Finding]:
    """Look at this Python, for the stages of a study that run in it."""
    if study is None:
        return
    from lockstep.study import packages

    missing, staged = packages.lacking(study), packages.cannot_download(study)
    if missing:
        found = f"this Python lacks {', '.join(missing)}, which the stages import"
        yield host.Finding(subject="packages", found=found, remedy=packages.REMEDY)
    if staged:
        found = f"this Python lacks {packages.DOWNLOADS}, which downloads {', '.join(staged)}"
        yield host.Finding(subject="packages", found=found, remedy=packages.DOWNLOADS_REMEDY)
    if not missing and not staged:
        yield host.Finding(subject="packages", found="what runs in this Python has all it imports")


def _images(study: "Study | None") -> Iterator[host.Finding]:
    if study is None:
        return findings(DEFAULTS, Path("data"), ("torch", "jax"))
    if not study.config["images"]["enabled"]:
        return iter(())
    used = {variant["framework"] for variant in study.config["variants"].values()}
    return findings(study.config["images"], study.data, used)


def findings(
    section: dict[str, Any], data: Path, frameworks: Iterable[str]
) -> Iterator[host.Finding]:
    """Yield one finding on images after the other, those that explain others first.

    Args:
        section: `images` of a study's config.
        data: the study's folder for data.
        frameworks: those that its variants use.
    """
    yield host.apptainer()
    yield host.user_namespaces()
    yield host.fuse()
    try:
        images = study_image.of_study(section, data, frameworks)
        missing = study_image.to_build(images.values(), cache_folder(section["cache"]))
    except UserError as error:
        remedy = "set images.ready to finished images (SIF files), or to none for them to be built"
        yield host.Finding(subject="images", found=str(error), remedy=remedy)
        return
    if missing:
        yield from _of_builds(section, [recipe.name for recipe in missing])
    else:
        yield host.Finding(subject="images", found="none has to be built")
    if any(image.recipe for image in images.values()):
        yield host.driver(section["cuda"], MINIMUM_DRIVER[section["cuda"]])


def _of_builds(section: dict[str, Any], names: list[str]) -> Iterator[host.Finding]:
    """Yield what matters where these images have to be built."""
    folder = Path(section["build_folder"] or tempfile.gettempdir())
    yield host.subordinate_ids()
    if not folder.is_dir():
        yield host.Finding(
            subject=f"build folder {folder}",
            found="is no folder",
            remedy="make it, or set images.build_folder to another",
        )
    else:
        yield host.build_folder(folder)
        # Where two do not fit beside each other, one waits for the other.
        largest = max(names, key=lambda name: build.NEEDED[name][0])
        grown = build.NEEDED[largest][0]
        yield host.space(folder, grown, f"building the image {largest}")
        yield _memory(folder, grown)
    kept = sum(build.NEEDED[name][1] for name in names)
    yield host.space(cache_folder(section["cache"]), kept, "keeping the images")
    if "base" in names and section["base"] == DEBIAN:
        yield _debian(section["debian_mirror"])


def _debian(mirror: str | None) -> host.Finding:
    """Can the base image's root file system be made from packages?"""
    try:
        root.check_tools()
        mirror = mirror or host_mirror()
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
