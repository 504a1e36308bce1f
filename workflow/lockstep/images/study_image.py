"""The images of a study: where each lies, and what a command in it may use."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.errors import UserError
from lockstep.images import cache, enter, sif
from lockstep.images.identity import CONTAINERS, NAMES, Recipe, recipe


@dataclass(frozen=True, kw_only=True)
class StudyImage:
    """An image as a study sees it.

    Attributes:
        name: `base`, `torch` or `jax`.
        identity: hash of what determines it; of a finished image, its fingerprint.
        folder: where the study has it; its path holds the identity.
        recipe: how it is built; None for a finished one.
        ready: the finished image that is used instead of building one.
    """

    name: str
    identity: str
    folder: Path
    recipe: Recipe | None
    ready: Path | None

    @property
    def manifest(self) -> Path:
        """What the image is: a small file, the real dependency of what runs in it."""
        return self.folder / cache.MANIFEST

    @property
    def sif(self) -> Path:
        """The image itself."""
        return self.folder / cache.SIF

    def facts(self) -> dict[str, Any]:
        """Return what a record says of the image, after a look at whether it is still that one.

        Raises:
            UserError: the image is missing or is not the one of its manifest.
        """
        manifest = self._checked_manifest()
        kept = ("name", "identity", "cuda_generation", "cuda", "python", "packages")
        return {
            **{key: manifest[key] for key in kept},
            "debian": files.digest(manifest["debian"]),  # their versions are in the manifest
            "sif_sha256": manifest["sif"]["sha256"],
            "root_sha256": manifest["sif"]["root_sha256"],
        }

    def entry(
        self, *, writable: Iterable[Path], readable: Iterable[Path], caches: Path
    ) -> enter.Pass:
        """Return the pass with which a command gets into the image.

        Raises:
            UserError: the image is missing or is not the one of its manifest.
        """
        return enter.Pass(
            image=str(self.sif.absolute()),
            identity=self.identity,
            name=self.name,
            writable=tuple(str(path.absolute()) for path in writable),
            readable=tuple(str(path.absolute()) for path in (*readable, CONTAINERS)),
            caches=str(caches.absolute()),
            minimum_driver=self._checked_manifest()["cuda"].get("minimum_driver"),
        )

    def _checked_manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = files.read_json(self.manifest)
        cache.check(self.sif, manifest)
        return manifest


def of_study(
    section: Mapping[str, Any], data: Path, frameworks: Iterable[str]
) -> dict[str, StudyImage]:
    """Return the images that a study runs in, by name.

    Args:
        section: `images` of the study's config.
        data: the study's folder for data.
        frameworks: those that its variants use.

    Raises:
        UserError: a finished image that the config names is not there.
    """
    if not section["enabled"]:
        return {}
    used = [name for name in NAMES if name == "base" or name in set(frameworks)]
    return {name: _image(section, data, name) for name in used}


def to_build(images: Iterable[StudyImage], kept: Path) -> list[Recipe]:
    """Return what has to be built: neither the study has it nor the cache `kept`."""
    found: dict[str, Recipe] = {}
    for image in images:
        recipe = None if image.manifest.is_file() else image.recipe
        while recipe is not None and not (kept / recipe.folder / cache.MANIFEST).is_file():
            found[recipe.folder] = recipe
            recipe = recipe.parent
    return list(found.values())


def _image(section: Mapping[str, Any], data: Path, name: str) -> StudyImage:
    ready = section["ready"][name]
    if ready is not None:
        path = Path(ready).expanduser().absolute()
        if not path.is_file():
            raise UserError(f"images.ready.{name} is {ready!r}, which is no file")
        identity = sif.fingerprint(path)
        folder = f"{name}-ready-{identity[:12]}"
        return StudyImage(
            name=name, identity=identity, folder=data / "images" / folder, recipe=None, ready=path
        )
    made = recipe(name, cuda=section["cuda"], start=section["base"])
    return StudyImage(
        name=name,
        identity=made.identity,
        folder=data / "images" / made.folder,
        recipe=made,
        ready=None,
    )
