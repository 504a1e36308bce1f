"""Makes an archive: one pass over the files, in bounded memory; equal studies give equal bytes."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
    names,
    opened,
    people,
    publishing,
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

Entries = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What goes into an archive.

    Attributes:
        lacking: what a complete study has besides.
        state: the same in a sentence.
        told: what the archive says of itself.
    """

    study: Study
    source: sources.Source
    rules: redact.Rules
    items: Sequence[Item]
    lacking: Sequence[str]
    state: str
    told: people.About


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
        UserError: files are missing and `partial` is not set, or one cannot be read or written.
    """
    try:
        if output is not None and output.is_dir():
            raise UserError(f"{output}: is a folder; name a file")
        plan = _plan(study, root)
        if not partial:
            _check_complete(plan, root)
        target = output or (study.partial_archive() if plan.lacking else study.archive())
        unchanged = _unchanged(target, plan)
        if not unchanged:
            _check_room(target, sum(item.size for item in plan.items) + SPARE)
            _write(target, plan)
    except container.Malformed as problem:
        raise UserError(f"{problem}; try again when the study is not being run") from problem
    except OSError as error:
        where = error.filename or output or study.archive()
        raise UserError(f"{where}: {error.strerror or error}; nothing was archived") from error
    return target, [*_lines(plan, target), *["unchanged: nothing to do"] * unchanged]


def _write(target: Path, plan: Plan) -> None:
    with files.atomic(target) as temporary, open(temporary, "wb") as stream:
        writer = container.Writer(stream)
        entries = {item.name: _entry(item, writer.add) for item in plan.items}
        for name, content in _made(plan, entries):
            writer.add(name, [content], len(content))
        writer.close()


def _plan(study: Study, root: Path) -> Plan:
    source, rules = sources.find(root), redact.here(study, root)
    items = gather.items(study, source, rules)
    flaw = names.flaw([*(item.name for item in items), *layout.MADE_LAST])
    if flaw:
        raise UserError(f"no archive can hold {flaw}; rename it")
    for item in items:
        if layout.shadows(item.name, link=bool((item.notes or {}).get("link"))):
            raise UserError(
                f"{root / item.name.removeprefix(layout.SOURCE)}: Python could run it in place of "
                "the code that is compared; remove it from the checkout, or have git ignore it"
            )
        why = opened.too_large(item.name, item.size)
        if why:
            raise UserError(
                f"{item.path or item.name}: {why}, so that nobody could verify the archive; "
                "take larger windows (window_steps), or leave its run out of the config"
            )
    lacking = completeness.missing(study, (item.name for item in items))
    # What a person reads first is made from the config as it is archived, without secrets.
    config = json.loads(rules.clean(json.dumps(study.config).encode()))
    return Plan(
        study=study,
        source=source,
        rules=rules,
        items=items,
        lacking=lacking,
        state=readme.state(study, lacking),
        told=people.about(Study(config)),
    )


def _check_complete(plan: Plan, root: Path) -> None:
    study, lacking = plan.study, plan.lacking
    if lacking:
        raise UserError(
            f"study {study.name}: {len(lacking)} files of a complete study are missing (the first "
            f"is {lacking[0]}); finish it, leave parts out (archive.include), or add --partial for "
            "an archive that says so"
        )
    trained = agree.source(study, root / "workflow" / "lockstep")
    if trained.wrong:
        raise UserError(
            f"study {study.name}: {len(trained.wrong)} runs were trained by other code than is in "
            f"{root} ({trained.wrong[0]}); run the workflow again, check the commit out that they "
            "were made with, or add --partial for an archive of them as they are"
        )


def _check_room(target: Path, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if size > free:
        raise UserError(
            f"{target}: needs {size >> 20} MiB, {free >> 20} MiB are free; free some space, or "
            "leave parts out (archive.include)"
        )


def _entry(item: Item, use: Callable[[str, Iterator[bytes], int], object]) -> dict[str, Any]:
    """Return a file's line in the manifest, from the bytes that `use` takes."""
    total = hashlib.sha256()

    def hashed() -> Iterator[bytes]:
        for piece in item.pieces():
            total.update(piece)
            yield piece

    use(item.name, hashed(), item.size)
    return {"bytes": item.size, "sha256": total.hexdigest(), **(item.notes or {})}


def _made(plan: Plan, entries: Entries) -> Iterator[tuple[str, bytes]]:
    """Yield what archiving itself makes; `entries` grows by each."""
    study, source, told = plan.study, plan.source, plan.told
    happened = story.tell(study, set(entries))
    date = happened.ended[:10]
    made = publishing.pages(
        study, told, source=source.about, state=plan.state, missing=plan.lacking, date=date
    )
    for name, content in made.items():
        entries[name] = manifest.entry(content)
        yield name, content
    described = crate.describe(study, told, happened, entries, source.commit, plan.state)
    described = plan.rules.clean(described)
    entries[layout.CRATE] = manifest.entry(described)
    yield layout.CRATE, described
    fields = {
        "schema": layout.SCHEMA,
        "study": study.name,
        "lockstep": __version__,
        "complete": not plan.lacking,
        "missing": list(plan.lacking),
        "include": settings.include(study),
        "source": source.about,
        "files": entries,
    }
    yield layout.MANIFEST, manifest.render(fields)


def _unchanged(target: Path, plan: Plan) -> bool:
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
        known = {n: line["bytes"] for n, line in there.files.items() if n not in layout.MADE_LAST}
        if known != {item.name: item.size for item in plan.items}:
            return False
        if any(check.wrong for check in (*there.checks, opened.hashes(there))):
            return False
        entries = {item.name: _entry(item, _read) for item in plan.items}
        held = there.reader.members
        made = _made(plan, entries)
        return all(name in held and there.reader.bytes_of(name) == has for name, has in made)


def _read(name: str, pieces: Iterator[bytes], size: int) -> None:
    for _ in pieces:
        pass


def _lines(plan: Plan, target: Path) -> list[str]:
    lines = [plan.state]
    if not plan.told.named:
        lines.append("no authors: name them in the config, archive.authors")
    if plan.told.licence is None:
        lines.append("no licence: state one in the config, archive.licence")
    size = target.stat().st_size if target.exists() else 0
    lines.append(f"archive: {os.fspath(target)} ({size / 1e6:.1f} MB)")
    return lines
