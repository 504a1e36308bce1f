"""The stage `images`, and the way of every other stage into its image."""

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lockstep import files, machine
from lockstep.cluster.launch import launch
from lockstep.images import build, cache, enter, settings, smoke
from lockstep.images.study_image import StudyImage
from lockstep.study import Study

WRITES_DATA = ("preprocess",)


def make(study: Study, name: str) -> None:
    """Bring an image to where the study has it: from the cache, built, or as it was given.

    Raises:
        UserError: it cannot be built here, or does not work; says why and the remedy.
    """
    image = study.image(name)
    resolved = settings.resolve(study.config["images"])
    if image.recipe is not None:
        cache.place(build.ensure(image.recipe, resolved), image.folder, resolved.place)
        return
    ready = image.ready
    assert ready is not None, "an image is built or given"
    with tempfile.TemporaryDirectory() as scratch:
        tested = smoke.test(name, ready, Path(scratch), lock=None)
    made = build.finished_manifest(name, image.identity, ready, tested)
    image.folder.mkdir(parents=True, exist_ok=True)
    files.remove(image.sif)
    image.sif.symlink_to(ready)
    files.write_json(image.manifest, made)


def image_of(study: Study, command: str, options: Mapping[str, Any]) -> StudyImage | None:
    """Return the image that a command of the command line runs in; None for the host.

    Building and downloading need a network. `train` stays outside: it starts the processes of a
    run, each of them inside (`training.block`).
    """
    if os.environ.get(enter.INSIDE) or not study.images:
        return None
    if command in ("preprocess", "weights", "report", "tell"):
        return study.images["base"]
    if command in ("parity", "cause"):
        return study.images[study.parity_image]
    if command == "trace":
        return study.images[study.variant(options["variant"])["framework"]]
    return None


def entry(
    study: Study, image: StudyImage, *, writes_data: bool = False, also: Sequence[Path] = ()
) -> enter.Pass:
    """Return the pass into an image: the study's folders and no others.

    Results can be written, data only where a stage makes them. What is not there is not mounted:
    the stage itself says best what it misses.
    """
    staged = [Path(entry["raw"]) for entry in study.config["datasets"].values() if entry.get("raw")]
    outside = [entry.get("folder") for entry in study.config["workloads"].values()]
    outside += [entry.get("start") for entry in study.config["workloads"].values()]
    outside += [entry.get("file") for entry in study.config["datasets"].values()]
    staged += [Path(path) for path in outside if path]
    writable = [study.root]
    readable = [path for path in (*staged, *also) if path.exists()]
    (writable if writes_data else readable).append(study.data)
    return image.entry(
        writable=writable, readable=readable, caches=study.caches(machine.instruction_set())
    )


def run_inside(study: Study, image: StudyImage, command: str, arguments: Sequence[str]) -> int:
    """Run a command of the command line in an image; returns its exit status."""
    leave = entry(study, image, writes_data=command in WRITES_DATA)
    line = enter.command(leave, ["-m", "lockstep", *arguments])
    return launch(line, processes=1, threads=len(os.sched_getaffinity(0)))


def worker(
    study: Study,
    framework: str,
    arguments: Sequence[str],
    *,
    reads: Path | None = None,
    package: str = "training",
    name: str = "worker",
) -> list[str]:
    """Return the command line of a run's process: in the framework's image if there is one.

    Args:
        reads: a file or folder that it must see besides those of the study.
        package: the room of its module.
        name: of its module there.
    """
    module = ["-m", f"lockstep.{package}.{name}", *arguments]
    if not study.images:
        return [sys.executable, *module]
    also = [reads] if reads else []
    return enter.command(entry(study, study.images[framework], also=also), module)
