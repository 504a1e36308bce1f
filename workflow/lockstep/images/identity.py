"""What determines an image, and its identity: the hash of that, which is part of its path.

An image is determined by its definition and what the definition reads (locks, shared steps), by
its build arguments, by the kind of CPU and by the image or root file system it starts from. Where
packages were fetched from, and where it was built, are not part of it: the locks say what is
fetched.
"""

import functools
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.errors import UserError

CONTAINERS = Path(__file__).resolve().parents[3] / "containers"
NAMES = ("base", "torch", "jax")
SUITE = "trixie"
EPOCH = 1767225600  # 2026-01-01; later times of files become this one, and so equal in every build
# -e comes last: Apptainer before 1.5 writes the time of day into this file.
SQUASHFS = "-comp zstd -Xcompression-level 3 -e .singularity.d/labels.json"
DEBIAN = "debian"
DOCKER = "docker:"
PINNED = re.compile(DOCKER + r"[^@\s]+@sha256:[0-9a-f]{64}")
SHARED = ("install.sh", "bytecode.py")  # what every definition runs besides itself
MINIMUM_DRIVER = {"cuda12": "525.60.13", "cuda13": "580.65.06"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What determines one image.

    Attributes:
        name: `base`, `torch` or `jax`.
        cuda: CUDA generation, `cuda12` or `cuda13`; None for the base image.
        start: what the base image starts from, `debian` or `docker:NAME@sha256:…`.
        definition, python_lock, debian_lock: files below `containers/`.
        parent: the image this one starts from; None for the base image.
    """

    name: str
    cuda: str | None
    start: str
    definition: Path
    python_lock: Path
    debian_lock: Path
    parent: "Recipe | None"

    @functools.cached_property
    def identity(self) -> str:
        """Hash (hex) of what determines the image."""
        return files.digest(self.determined_by())

    @property
    def folder(self) -> str:
        """Name of the folder that holds the image: for people, with the identity for machines."""
        label = f"{self.name}-{self.cuda}" if self.cuda else self.name
        return f"{label}-{self.identity[:12]}"

    def determined_by(self) -> dict[str, Any]:
        """Return everything that the identity is made from."""
        containers = self.definition.parent
        return {
            "name": self.name,
            "architecture": platform.machine(),
            "definition": files.sha256_file(self.definition),
            "steps": {name: files.sha256_file(containers / name) for name in SHARED},
            "python": files.sha256_file(self.python_lock),
            "debian": files.sha256_file(self.debian_lock),
            "parent": self.parent.identity if self.parent else [self.start, SUITE],
            "epoch": EPOCH,
            "squashfs": SQUASHFS,
        }


def recipe(
    name: str, *, cuda: str = "cuda12", start: str = DEBIAN, containers: Path = CONTAINERS
) -> Recipe:
    """Return the recipe of an image.

    Args:
        name: `base`, `torch` or `jax`.
        cuda: CUDA generation of the framework images.
        start: what the base image starts from.
        containers: folder of the definitions.

    Raises:
        UserError: `start` is neither of its two forms, or a file of the recipe is missing.
    """
    if start != DEBIAN and not PINNED.fullmatch(start):
        raise UserError(
            f"images.base is {start!r}; it must be 'debian' or 'docker:NAME@sha256:DIGEST' (a tag "
            "alone can name another image tomorrow)"
        )
    framework = name != "base"
    made = Recipe(
        name=name,
        cuda=cuda if framework else None,
        start=start,
        definition=containers / f"{name}.def",
        python_lock=containers / "locks" / (f"{cuda}-{name}.txt" if framework else "base.txt"),
        debian_lock=containers / "locks" / f"debian-{'torch' if name == 'torch' else 'base'}.txt",
        parent=recipe("base", cuda=cuda, start=start, containers=containers) if framework else None,
    )
    shared = [containers / step for step in SHARED]
    for path in (made.definition, made.python_lock, made.debian_lock, *shared):
        if not path.is_file():
            raise UserError(f"{path}: no such file, but image {name} is made from it")
    return made


def locked_versions(lock: Path) -> dict[str, str]:
    """Return the versions that a lock of Python packages pins, by normalised name."""
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", lock.read_text(), re.MULTILINE)
    return {normalised(name): version for name, version in pins}


def normalised(package: str) -> str:
    """Return a package's name in the one spelling that compares (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


def cuda_facts(cuda: str | None, packages: Mapping[str, str]) -> dict[str, str]:
    """Return the versions of CUDA, cuDNN and NCCL among `packages`, and the driver they need."""
    facts = {}
    for fact, stem in (
        ("runtime", "nvidia-cuda-runtime"),
        ("cudnn", "nvidia-cudnn"),
        ("nccl", "nvidia-nccl"),
    ):
        for package, version in packages.items():
            if re.fullmatch(rf"{stem}(-cu\d+)?", package):
                facts[fact] = version
    if cuda:
        facts["minimum_driver"] = MINIMUM_DRIVER[cuda]
    return facts
