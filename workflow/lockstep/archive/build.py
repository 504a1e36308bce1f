"""Makes an archive: one pass over the files, in bounded memory; equal studies give equal bytes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep import __version__, files
from lockstep.archive import (
    archive_reader,
    collect,
    description,
    layout,
    provenance,
    secret_rules,
    source,
    zip_container,
)
from lockstep.archive.collect import Item
from lockstep.archive.crate import Crate
from lockstep.archive.layout import Read
from lockstep.archive.source import Source
from lockstep.errors import UserError
from lockstep.study import Study


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What goes into an archive."""

    study: Study  # without secrets; its paths are names in the archive
    source: Source
    items: Sequence[Item]
    missing: Sequence[str]  # what a complete study has besides
    read: Read


def build(
    study: Study, *, partial: bool = False, output: Path | None = None, root: Path = source.ROOT
) -> tuple[Path, list[str]]:
    """Write a study's archive.

    Args:
        partial: files of a complete study may be missing; the archive says which.
        output: where to; the study's own place if None.
        root: the checkout whose source goes into it.

    Returns:
        Where it is, and the lines that a person sees.

    Raises:
        UserError: files are missing and `partial` is not set, one cannot be read or written, or
            one holds a secret.
    """
    try:
        plan = _plan(study, root)
        if not partial:
            _check_complete(plan, study, root)
        target = output or (study.partial_archive() if plan.missing else study.archive())
        with files.atomic(target) as temporary:
            with open(temporary, "wb") as stream, zip_container.Writer(stream) as writer:
                _fill(writer, plan)
            sha256 = files.sha256_file(temporary)
    except OSError as error:
        where = error.filename or output or study.archive()
        raise UserError(f"{where}: {error.strerror or error}; nothing was archived") from error
    return target, _lines(plan, target, sha256)


def _plan(study: Study, root: Path) -> Plan:
    found, rules = source.find(root), secret_rules.here(study, root)
    if layout.include(study.config)["untracked"]:
        found = found.with_untracked()
    items = collect.items(study, found, rules)
    unsafe = layout.unsafe([*(item.name for item in items), *layout.DERIVED, layout.HASHES])
    if unsafe:
        raise UserError(f"no archive can hold {unsafe}; rename it")
    for item in items:
        if too_large := layout.too_large(item.name, item.size):
            raise UserError(
                f"{item.path or item.name}: {too_large} when an archive is verified; take larger "
                "windows (window_steps), or leave its run out of the config"
            )
    read = collect.as_archived({item.name: item for item in items})
    clean = json.loads(rules.clean(json.dumps(study.config).encode()))
    archived = layout.named_as_archived(clean)
    missing = layout.missing(archived, {item.name for item in items}, read)
    return Plan(study=archived, source=found, items=items, missing=missing, read=read)


def _check_complete(plan: Plan, study: Study, root: Path) -> None:
    if plan.missing:
        raise UserError(
            f"study {study.name}: {len(plan.missing)} files of a complete study are missing (the "
            f"first is {plan.missing[0]}); finish it, leave parts out (archive.include), or add "
            "--partial for an archive that says so"
        )
    trained = source.trained_by(plan.study, plan.read, root / "workflow" / "lockstep")
    if other := list(filter(None, trained.values())):
        raise UserError(
            f"study {study.name}: {len(other)} runs were trained by other code than is in {root} "
            f"({other[0]}); run the workflow again, check the commit out that they were made with, "
            "or add --partial for an archive of them as they are"
        )
    code = [name for name in plan.source.untracked if name.startswith("workflow/")]
    if code:
        raise UserError(
            f"study {study.name}: git does not track {code[0]}, so that code would be missing in "
            "the archive; commit it, have git ignore it, or set archive.include.untracked"
        )


def _fill(writer: zip_container.Writer, plan: Plan) -> None:
    sizes: dict[str, int] = {}
    hashes: dict[str, str] = {}
    rewritten: set[str] = set()

    def add(name: str, pieces: Iterator[bytes], size: int) -> None:
        sizes[name], hashes[name] = writer.add(name, pieces, size)

    for item in plan.items:
        add(item.name, item.pieces(rewritten), item.size)
    about = {
        "schema": layout.SCHEMA,
        "study": plan.study.name,
        "lockstep": __version__,
        "complete": not plan.missing,
        "missing": list(plan.missing),
        "include": layout.include(plan.study.config),
        "source": {"commit": plan.source.commit, "note": plan.source.note},
        "rewritten": sorted(rewritten),
        "executable": [item.name for item in plan.items if item.executable],
        "links": [item.name for item in plan.items if item.link],
    }
    for name, content in derived(plan.study, about, sizes, hashes, plan.read):
        add(name, iter([content]), len(content))
    listing = archive_reader.listing(hashes)
    writer.add(layout.HASHES, [listing], len(listing))


def derived(study: Study, told: Mapping[str, Any], sizes: Mapping[str, int],
            hashes: Mapping[str, str], read: Read) -> Iterator[tuple[str, bytes]]:  # fmt: skip
    """Yield name and content of what archiving makes of the other files; verifying does it again.

    Args:
        study: whose paths are names in the archive.
        told: the content of ``archive.json``.
        sizes, hashes: of the other files, and at least of each that was yielded before.
        read: returns the JSON of one of the other files.
    """
    happened = provenance.actions(study, [n for n in hashes if n not in layout.DERIVED], read)
    date = provenance.span(happened)[1][:10]
    # Whatever an archive says of that.
    told = {**told, "lockstep": __version__, "complete": not told["missing"],
            "include": layout.include(study.config)}  # fmt: skip
    yield layout.README, description.readme(study, told, read)
    yield layout.UPLOAD, description.upload(study, date)
    yield layout.CITATION, description.citation(study, date)
    yield layout.ABOUT, json.dumps(told, indent=1, ensure_ascii=False).encode() + b"\n"
    made = Crate(study=study, about=told, sizes=sizes, hashes=hashes, read=read, happened=happened)
    yield layout.CRATE, made.as_json()


def _lines(plan: Plan, target: Path, sha256: str) -> list[str]:
    lines = [description.state(plan.study, plan.missing, plan.read)]
    told = plan.study.config.get("archive", {})
    if not told.get("authors"):
        lines.append("no authors: name them in the config, archive.authors")
    if not told.get("licence"):
        lines.append("no licence: state one in the config, archive.licence")
    if plan.source.untracked:
        shown, more = plan.source.untracked[:5], len(plan.source.untracked) - 5
        rest = f" and {more} more" if more > 0 else ""
        lines.append(f"left out, as git does not track them: {', '.join(shown)}{rest}")
    size = target.stat().st_size / 1e6
    return [*lines, f"archive: {target} ({size:.1f} MB)", f"sha256: {sha256}"]
