"""What goes into an archive: each file with its name in there and where its bytes come from."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.archive import layout, settings
from lockstep.archive.completeness import read, shards
from lockstep.archive.container import CHUNK
from lockstep.archive.redact import Rules, is_text
from lockstep.archive.source import Source
from lockstep.errors import UserError
from lockstep.study import Study


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file of an archive.

    Attributes:
        name: in the archive.
        path: where its bytes are; None if they are `content`.
        content: its bytes, of small files that were made or rewritten.
        notes: what the manifest says of it besides size and hash.
    """

    name: str
    path: Path | None = None
    content: bytes | None = None
    notes: Mapping[str, Any] | None = None

    @property
    def size(self) -> int:
        """Its size in bytes."""
        if self.content is not None:
            return len(self.content)
        assert self.path is not None
        return self.path.stat().st_size

    def pieces(self) -> Iterator[bytes]:
        """Yield its bytes in pieces."""
        if self.content is not None:
            yield self.content
            return
        assert self.path is not None
        with open(self.path, "rb", buffering=0) as stream:
            while piece := stream.read(CHUNK):
                yield piece


def items(study: Study, source: Source, rules: Rules) -> list[Item]:
    """Return everything but what archiving makes itself, sorted by name."""
    found = [*_source(source, rules), *_results(study, rules), *_data(study, rules)]
    config = files.canonical_json(settings.reproducible(study.config))
    found.append(Item(name=layout.STUDY, content=rules.clean(config + b"\n")))
    return sorted(found, key=lambda item: item.name)


def _source(source: Source, rules: Rules) -> Iterator[Item]:
    for name in source.files:
        path = source.root / name
        target = layout.SOURCE + name
        if path.is_symlink():
            yield Item(name=target, content=os.fsencode(path.readlink()), notes={"link": True})
            continue
        if not path.is_file():
            continue  # a submodule
        notes = {"executable": True} if os.access(path, os.X_OK) else {}
        content = path.read_bytes()
        # Paths stay: they are what the authors wrote, and code is compared by its digest.
        cleaned = content if b"\0" in content else rules.clean(content, paths=False)
        if cleaned != content:
            yield Item(name=target, content=cleaned, notes={**notes, "rewritten": True})
        else:
            yield Item(name=target, path=path, notes=notes)
    if source.difference:
        yield Item(name=layout.DIFFERENCE, content=rules.clean(source.difference, paths=False))


def _results(study: Study, rules: Rules) -> Iterator[Item]:
    wanted = settings.include(study)
    bound = _bound(study)
    for path in _walk(study.root):
        below = path.relative_to(study.root).as_posix()
        if not layout.kept(below, traces=wanted["traces"], states=wanted["checkpoints"]):
            continue
        name = f"{layout.RESULTS}{study.name}/{below}"
        if not is_text(below):
            yield Item(name=name, path=path)
            continue
        item = _cleaned(name, path, rules)
        if item.content is not None and below in bound:
            raise UserError(
                f"{path}: holds a path of this machine or a secret, and cannot be rewritten, as "
                "other records have its hash; make it again without"
            )
        yield item


def _cleaned(name: str, path: Path, rules: Rules) -> Item:
    """Return a text as it may be archived: rewritten only if it must be."""
    content = path.read_bytes()
    cleaned = rules.clean(content)
    if cleaned == content:
        return Item(name=name, path=path)
    return Item(name=name, content=cleaned, notes={"rewritten": True})


def _bound(study: Study) -> set[str]:
    """Return the files whose hash another record holds: they cannot be rewritten."""
    found = {"report/index.html", "report/report.json"}
    for path in (study.root / "blocks").rglob("*.json"):
        try:
            runs = json.loads(path.read_bytes())["runs"]
            found |= {f"runs/{run}/{n}" for run, entry in runs.items() for n in entry["sha256"]}
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # verifying will say so
    return found


def _data(study: Study, rules: Rules) -> Iterator[Item]:
    wanted = settings.include(study)
    for folder in dataset_folders(study):
        target = f"{layout.DATA}datasets/{folder.name}/"
        yield _cleaned(target + "manifest.json", folder / "manifest.json", rules)
        if wanted["data"]:
            for name in sorted(shards(read(folder / "manifest.json"))):
                if (folder / name).is_file():
                    yield Item(name=target + name, path=folder / name)
    for image in study.images.values():
        if image.manifest.is_file():
            target = f"{layout.DATA}images/{image.folder.name}/"
            yield _cleaned(target + "manifest.json", image.manifest, rules)
            if wanted["images"] and image.sif.is_file():
                yield Item(name=target + "image.sif", path=image.sif)


def dataset_folders(study: Study) -> list[Path]:
    """Return the datasets that the study's runs were trained on, or would be."""
    folders = {
        study.dataset_folder(study.workload(workload)["dataset"])
        for workload in study.config["workloads"]
    }
    for path in (study.root / "runs").glob("*/*/*/seed-*/summary.json"):
        try:
            dataset = json.loads(path.read_bytes())["dataset"]
            folders.add(study.data / "datasets" / f"{dataset['name']}-{dataset['identity'][:12]}")
        except (ValueError, KeyError, TypeError):
            continue  # verifying will say so
    return sorted(folder for folder in folders if (folder / "manifest.json").is_file())


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            name for name in folders if name not in ("cache", "checkpoints", "states", "wandb")
        )
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_file() and not name.startswith("."):
                yield path
