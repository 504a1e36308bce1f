"""What goes into an archive: each file with its name in there and where its bytes come from."""

import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep import files
from lockstep.archive import layout, redact, settings, strangers
from lockstep.archive.completeness import read, shards
from lockstep.archive.container import CHUNK
from lockstep.archive.redact import Rules, is_text
from lockstep.archive.source import Source
from lockstep.errors import UserError
from lockstep.study import Study

Clean = Callable[[bytes], bytes]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file of an archive.

    Attributes:
        name: in the archive.
        size: in bytes, of what is written.
        path: where its bytes are; None if they are `content`.
        content: its bytes, of small files that were made.
        clean: what a text goes through whenever it is read; it may be longer by then.
        notes: what the manifest says of it besides size and hash.
    """

    name: str
    size: int
    path: Path | None = None
    content: bytes = b""
    clean: Clean | None = None
    notes: Mapping[str, Any] | None = None

    def pieces(self) -> Iterator[bytes]:
        """Yield its bytes in pieces."""
        if self.path is None:
            yield self.content
            return
        with open(self.path, "rb", buffering=0) as stream:
            if self.clean is not None:
                yield from map(self.clean, redact.parts(stream))
                return
            while piece := stream.read(CHUNK):
                yield piece


def _file(name: str, path: Path, **notes: bool) -> Item:
    """Return a file as it is."""
    return Item(name=name, path=path, size=path.stat().st_size, notes=notes)


def _text(name: str, path: Path, clean: Clean, **notes: bool) -> Item:
    """Return a text as it may be archived."""
    size, rewritten = 0, False
    with open(path, "rb", buffering=0) as stream:
        for part in redact.parts(stream):
            cleaned = clean(part)
            size += len(cleaned)
            rewritten = rewritten or cleaned != part
    noted = {**notes, "rewritten": True} if rewritten else notes
    return Item(name=name, path=path, size=size, clean=clean, notes=noted)


def _made(name: str, content: bytes, clean: Clean) -> Item:
    """Return a text that is no file."""
    cleaned = clean(content)
    notes = {"rewritten": True} if cleaned != content else {}
    return Item(name=name, size=len(cleaned), content=cleaned, notes=notes)


def items(study: Study, source: Source, rules: Rules) -> list[Item]:
    """Return everything but what archiving makes itself, sorted by name."""
    found = [*_source(source, rules), *_results(study, rules), *_data(study, rules)]
    config = files.canonical_json(settings.reproducible(study.config))
    found.append(_made(layout.STUDY, config + b"\n", rules.clean))
    return sorted(found, key=lambda item: item.name)


def _source(source: Source, rules: Rules) -> Iterator[Item]:
    rules = rules.of_source()
    for name in source.files:
        path, target = source.root / name, layout.SOURCE + name
        if path.is_symlink():
            yield _link(target, path, rules)
            continue
        notes = {"executable": True} if path.stat().st_mode & 0o100 else {}
        if _binary(path):
            yield _file(target, path, **notes)
        elif _is_compared(name):
            yield _compared(target, path, rules, **notes)
        else:
            yield _text(target, path, rules.clean, **notes)
    if source.difference:
        yield _made(layout.DIFFERENCE, source.difference, rules.clean)


def _is_compared(name: str) -> bool:
    """Whether records or images have the hash of a file of the source."""
    code = name.startswith("workflow/lockstep/") and name.endswith(".py")
    return code or name.startswith("containers/")


def _compared(name: str, path: Path, rules: Rules, **notes: bool) -> Item:
    """Return a text that cannot be rewritten; what code itself says of paths may stay."""
    item = _text(name, path, functools.partial(rules.clean, paths=False, named=False), **notes)
    code = not name.startswith(f"{layout.SOURCE}containers/")
    hidden = bool(item.notes and item.notes.get("rewritten"))
    if hidden or (not code and redact.HOMES.search(path.read_bytes())):
        raise UserError(
            f"{path}: holds {'a secret' if hidden else 'a home folder'}, and cannot be rewritten, "
            "as records or images have its hash; take it out"
        )
    return item


def _link(name: str, path: Path, rules: Rules) -> Item:
    leads = rules.clean(os.fsencode(path.readlink()))
    if leads.startswith(b"/"):
        raise UserError(
            f"{path}: is a link to a place of this machine, {os.fsdecode(leads)}; make it a "
            "relative one within the checkout, or remove it"
        )
    return Item(name=name, size=len(leads), content=leads, notes={"link": True})


def _binary(path: Path) -> bool:
    with open(path, "rb") as stream:
        return redact.is_binary(stream.read(redact.BEGINNING))


def _results(study: Study, rules: Rules) -> Iterator[Item]:
    wanted = settings.include(study)
    bound, named = _bound(study), strangers.named(study)
    for path in _walk(study.root):
        below = path.relative_to(study.root).as_posix()
        if not layout.kept(below, traces=wanted["traces"], states=wanted["checkpoints"]):
            continue
        if below.startswith(strangers.NAMED) and below not in named:
            continue  # of a variant or a seed that the config had once
        name = f"{layout.RESULTS}{study.name}/{below}"
        if not is_text(below):
            yield _file(name, path)
            continue
        # What only may be a secret must not keep a study from being archived.
        item = _text(name, path, functools.partial(rules.clean, named=below not in bound))
        if item.notes and below in bound:
            raise UserError(
                f"{path}: holds a path of this machine or a secret, and cannot be rewritten, as "
                "other records have its hash; make it again without"
            )
        yield item


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
        yield _text(target + "manifest.json", folder / "manifest.json", rules.clean)
        if wanted["data"]:
            for name in sorted(shards(read(folder / "manifest.json"))):
                if (folder / name).is_file():
                    yield _file(target + name, folder / name)
    for image in study.images.values():
        if image.manifest.is_file():
            target = f"{layout.DATA}images/{image.folder.name}/"
            yield _text(target + "manifest.json", image.manifest, rules.clean)
            if wanted["images"] and image.sif.is_file():
                yield _file(target + "image.sif", image.sif)


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
