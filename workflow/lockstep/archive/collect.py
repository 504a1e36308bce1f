"""What goes into an archive: each file with its name in there and where its bytes come from."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lockstep.archive import layout, secret_rules
from lockstep.archive.secret_rules import Rules
from lockstep.archive.source import Source
from lockstep.archive.zip_container import CHUNK
from lockstep.errors import UserError
from lockstep.study import Study

TEXT = (".json", ".log", ".txt", ".csv", ".html", ".svg")
CODE = (".py", ".smk", ".j2", ".def", ".sh", ".md", ".rst", ".txt", ".html", ".css")
"""Of the source, where a word such as `password` before a text says nothing."""
BEGINNING = 8000
HASHED = ("report/index.html", "report/report.json")
"""Besides a run's records: what cannot be rewritten, because other records have its hash."""

Clean = Callable[[bytes, int], bytes]
"""From a part of a text and the number of its first line to what is archived of it."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file of an archive."""

    name: str  # in the archive
    path: Path | None = None  # where its bytes are; None if they are `content`
    content: bytes = b""  # its bytes, of small files that were made
    # what rewrites a text, part by part (`secret_rules.parts`), and raises UserError for what must
    # not be archived; None for what is no text.
    clean: Clean | None = None
    executable: bool = False  # what ``archive.json`` says of it.
    link: bool = False

    @property
    def size(self) -> int:
        """Its size in bytes, as long as nothing in it is replaced."""
        return len(self.content) if self.path is None else self.path.stat().st_size

    def pieces(self, rewritten: set[str] | None = None) -> Iterator[bytes]:
        """Yield its bytes in pieces.

        Args:
            rewritten: its name is added if something in it is replaced.

        Raises:
            UserError: it holds a secret or a path, and cannot be rewritten.
        """
        if self.path is None:
            yield self.content
            return
        with open(self.path, "rb", buffering=0) as stream:
            if self.clean is None:
                while piece := stream.read(CHUNK):
                    yield piece
                return
            line = 1
            for part in secret_rules.parts(stream):
                cleaned = self.clean(part, line)
                line += part.count(b"\n")
                if rewritten is not None and cleaned != part:
                    rewritten.add(self.name)
                yield cleaned


def items(study: Study, source: Source, rules: Rules) -> list[Item]:
    """Return everything but what archiving makes itself, sorted by name.

    Raises:
        UserError: a file or a link is in the source that must not be archived.
    """
    found = [*_source(source, rules), *_outside(study, rules), *_results(study, rules)]
    found += _data(study, rules)
    # In the config's own order: parity is measured against the first variant.
    config = json.dumps(layout.reproducible(study.config), indent=1, allow_nan=False) + "\n"
    found.append(Item(name=layout.STUDY, content=rules.clean(config.encode())))
    return sorted(found, key=lambda item: item.name)


def _outside(study: Study, rules: Rules) -> Iterator[Item]:
    """Yield the code of workloads and sources outside of the package, as if it lay there."""
    found: dict[str, Path] = {}
    for entry in study.config["workloads"].values():
        for path in Path(entry["folder"]).rglob("*.py") if entry.get("folder") else ():
            inner = path.relative_to(entry["folder"]).as_posix()
            found[f"{layout.PACKAGE}workloads/{entry['workload']}/{inner}"] = path
    for entry in study.config["datasets"].values():
        if entry.get("file"):
            name = f"{layout.PACKAGE}datasets/sources/{entry['source']}.py"
            found[name] = Path(entry["file"])
    for name, path in found.items():
        yield Item(name=name, path=path, clean=_checked(path, rules, "kept"))


def _cleaned(rules: Rules) -> Clean:
    """Return what replaces secrets and paths of this machine."""
    return lambda part, _: rules.clean(part)


def _checked(path: Path, rules: Rules, paths: str, *, assigned: bool = False) -> Clean:
    """Return what stops at a secret, by line and kind.

    Args:
        paths: those of this machine are `kept`, `replaced` or `refused`.
        assigned: look also for what only a word before it says is a secret.
    """

    def clean(part: bytes, line: int) -> bytes:
        for place, kind in sorted(rules.secrets(part, assigned=assigned)):
            raise UserError(
                f"{path}, line {line + part.count(10, 0, place)}: looks like a secret ({kind}); "
                "remove it, and revoke it if it was published (a line of the source that holds "
                f"none: add a comment `{secret_rules.ALLOWED.decode()}`)"
            )
        cleaned = part if paths == "kept" else rules.without_paths(part)
        if paths == "refused" and cleaned != part:
            named = next(
                (place.decode() for place, _ in rules.paths if place in part), "somebody's home"
            )
            raise UserError(
                f"{path}: names a folder of this machine ({named}), and cannot be rewritten, as "
                "records have its hash; make it again without"
            )
        return cleaned

    return clean


# The source -----------------------------------------------------------------------------------


def _source(source: Source, rules: Rules) -> Iterator[Item]:
    """Yield the files of the checkout; paths of this machine are replaced where no hash binds them.

    There, /root is nobody's name.
    """
    rules = replace(rules, paths=tuple(pair for pair in rules.paths if pair[0] != b"/root"))
    for name in source.files:
        path, target = source.root / name, layout.SOURCE + name
        if secret_rules.FILES.fullmatch(path.name):
            raise UserError(
                f"{path}: has a name as files of keys or passwords have; remove it from the "
                "repository"
            )
        if path.is_symlink():
            leads = rules.without_paths(os.fsencode(path.readlink()))
            if leads.startswith(b"/"):
                raise UserError(
                    f"{path}: is a link to a place of this machine, {os.fsdecode(leads)}; make "
                    "it a relative one within the checkout, or remove it"
                )
            yield Item(name=target, content=leads, link=True)
            continue
        with open(path, "rb") as stream:
            text = b"\0" not in stream.read(BEGINNING)
        clean = _source_rule(name, path, rules) if text else None
        executable = bool(path.stat().st_mode & 0o100)
        yield Item(name=target, path=path, clean=clean, executable=executable)


def _source_rule(name: str, path: Path, rules: Rules) -> Clean:
    assigned = not name.endswith(CODE)
    if name.startswith("workflow/lockstep/"):
        return _checked(path, rules, "kept", assigned=assigned)
    if name.startswith("containers/"):  # which name places of images: only homes are a person's
        return _checked(path, replace(rules, paths=()), "refused", assigned=assigned)
    return _checked(path, rules, "replaced", assigned=assigned)


# Results and data -----------------------------------------------------------------------------


def _results(study: Study, rules: Rules) -> Iterator[Item]:
    wanted = {"": True, **layout.include(study.config)}
    asked = layout.study_files(study, optional=True)
    paths = {path for path, part in asked.items() if wanted[part]}
    if wanted["artefacts"]:
        made = layout.artefacts(study, _json)
        paths |= {Path(name).relative_to(study.root).as_posix() for name in made}
    for path in (*study.root.glob("report/*/*"), *study.root.glob("logs/**/*")):
        below = path.relative_to(study.root).as_posix()
        paths |= {below} if layout.FURTHER.fullmatch(below) else set()
    for below in paths:
        path, name = study.root / below, f"{layout.RESULTS}{study.name}/{below}"
        if path.is_file():
            # What only may be a secret must not keep a study from being archived.
            hashed = path.name in layout.RECORDS or below in HASHED
            clean = _checked(path, rules, "refused") if hashed else _cleaned(rules)
            yield Item(name=name, path=path, clean=clean if below.endswith(TEXT) else None)


def _data(study: Study, rules: Rules) -> Iterator[Item]:
    """Yield manifests of the datasets and images that config and records name, and what is asked
    for of them.
    """
    wanted = {identity for known in layout.data_named(study, _json).values() for identity in known}
    datasets = {study.workload(workload)["dataset"] for workload in study.config["workloads"]}
    wanted |= {study.dataset_identity(name)[:12] for name in datasets}
    wanted |= {image.identity[:12] for image in study.images.values()}
    for manifest in sorted(study.data.glob("*/*/manifest.json")):
        folder = manifest.parent
        if folder.name.rpartition("-")[2] in wanted:
            target = f"{layout.DATA}{folder.parent.name}/{folder.name}/"
            yield Item(name=target + manifest.name, path=manifest, clean=_cleaned(rules))
            part, described = layout.contents(str(folder), _json(manifest))
            asked = described if layout.include(study.config)[part] else ()
            there = [name for name in asked if (folder / name).is_file()]
            yield from (Item(name=target + name, path=folder / name) for name in there)


def _json(name: str | Path) -> Any:
    """Return the JSON of a file of this machine; see `layout.Read`."""
    return layout.parsed(Path(name).read_bytes()) if Path(name).is_file() else None


def as_archived(found: Mapping[str, Item]) -> layout.Read:
    """Return what reads the JSON of collected files as the archive will have them."""
    return lambda name: layout.parsed(b"".join(found[name].pieces())) if name in found else None
