"""Makes an archive: one pass over the files, in bounded memory; equal studies give equal bytes."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lockstep import __version__, files
from lockstep.archive import (
    agree,
    completeness,
    container,
    crate,
    gather,
    layout,
    manifest,
    opened,
    people,
    readme,
    redact,
    settings,
    story,
)
from lockstep.archive import source as sources
from lockstep.archive.gather import Item
from lockstep.errors import UserError
from lockstep.study import Study

SPARE = 1 << 20  # room for directory and descriptions


def build(
    study: Study, *, partial: bool = False, output: Path | None = None, root: Path = sources.ROOT
) -> tuple[Path, list[str]]:
    """Write a study's archive, unless it is there with the same content.

    Args:
        partial: files of a complete study may be missing; the archive says which.
        output: where to; the study's own place if None.
        root: the checkout whose source goes into it.

    Returns:
        Where it is, and the lines that a person sees.

    Raises:
        UserError: files are missing and `partial` is not set, or there is no room.
    """
    source = sources.find(root)
    rules = redact.here(study, root)
    items = gather.items(study, source, rules)
    lacking = completeness.missing(study, (item.name for item in items))
    if lacking and not partial:
        raise UserError(
            f"study {study.name}: {len(lacking)} files of a complete study are missing (the first "
            f"is {lacking[0]}); finish it, leave parts out (archive.include), or add --partial for "
            "an archive that says so"
        )
    trained = agree.source(study, root / "workflow" / "lockstep")
    if trained.wrong and not partial:
        raise UserError(
            f"study {study.name}: {len(trained.wrong)} runs were trained by other code than is in "
            f"{root}; run the workflow again, check the commit out that they were made with, or "
            "add --partial for an archive of them as they are"
        )
    state = readme.state(study, lacking)
    target = output or (study.partial_archive() if lacking else study.archive())
    if _unchanged(target, study, source, items, lacking, state):
        return target, [*_lines(study, target, state), "unchanged: nothing to do"]
    size = sum(item.size for item in items) + SPARE
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if size > free:
        raise UserError(
            f"{target}: needs {size >> 20} MiB, {free >> 20} MiB are free; free some space, or "
            "leave parts out (archive.include)"
        )
    try:
        with files.atomic(target) as temporary, open(temporary, "wb") as stream:
            writer = container.Writer(stream)
            entries = {item.name: _write(writer, item) for item in items}
            for name, content in _made(study, source, items, entries, lacking, state):
                writer.add(name, [content], len(content))
            writer.close()
    except container.Malformed as problem:
        raise UserError(f"{problem}; try again when the study is not being run") from problem
    return target, _lines(study, target, state)


def _write(writer: container.Writer, item: Item) -> dict[str, Any]:
    total = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for piece in item.pieces():
            total.update(piece)
            yield piece

    size = item.size
    writer.add(item.name, hashed(), size)
    return {"bytes": size, "sha256": total.hexdigest(), **(item.notes or {})}


def _made(
    study: Study,
    source: sources.Source,
    items: Sequence[Item],
    entries: dict[str, dict[str, Any]],
    lacking: Sequence[str],
    state: str,
) -> Iterator[tuple[str, bytes]]:
    """Yield what archiving itself makes; `entries` grows by each."""
    told, happened = people.about(study), story.tell(study, set(entries))
    date = happened.ended[:10]
    include = settings.include(study)
    for name, content in (
        (layout.README, readme.readme(study, told, source, state, include=include,
                                      file=study.archive().name,
                                      version=__version__)),
        (layout.UPLOAD, people.upload(told, date)),
        (layout.CITATION, people.citation(told, date)),
    ):  # fmt: skip
        entries[name] = manifest.entry(content)
        yield name, content
    described = crate.describe(study, happened, entries, source.commit, state)
    entries[layout.CRATE] = manifest.entry(described)
    yield layout.CRATE, described
    fields = {
        "schema": layout.SCHEMA,
        "study": study.name,
        "lockstep": __version__,
        "complete": not lacking,
        "missing": list(lacking),
        "include": include,
        "source": {"commit": source.commit, "note": source.note},
        "files": entries,
    }
    yield layout.MANIFEST, manifest.render(fields)


def _unchanged(
    target: Path,
    study: Study,
    source: sources.Source,
    items: Sequence[Item],
    lacking: Sequence[str],
    state: str,
) -> bool:
    """Whether the archive that is there is whole and holds just this; writes nothing.

    Reads every file, and the archive as verifying does: a byte of it may have rotten.
    """
    if not target.is_file():
        return False
    with open(target, "rb") as stream:
        try:
            there = opened.read(target, stream)
        except UserError:
            return False
        known = there.files
        if {item.name: item.size for item in items} != {
            name: line["bytes"] for name, line in known.items() if name not in layout.MADE_LAST
        }:
            return False
        if any(check.wrong for check in (*there.checks, opened.hashes(there))):
            return False
        entries = {item.name: _hashed(item) for item in items}
        made = _made(study, source, items, entries, lacking, state)
        held = there.reader.members
        return all(name in held and there.reader.bytes_of(name) == has for name, has in made)


def _hashed(item: Item) -> dict[str, Any]:
    total, size = hashlib.sha256(), 0
    for piece in item.pieces():
        total.update(piece)
        size += len(piece)
    return {"bytes": size, "sha256": total.hexdigest(), **(item.notes or {})}


def _lines(study: Study, target: Path, state: str) -> list[str]:
    told = people.about(study)
    lines = [state]
    if not told.named:
        lines.append("no authors: name them in the config, archive.authors")
    if told.licence is None:
        lines.append("no licence: state one in the config, archive.licence")
    size = target.stat().st_size if target.exists() else 0
    lines.append(f"archive: {os.fspath(target)} ({size / 1e6:.1f} MB)")
    return lines
