"""What goes into an archive: each file with its name in there and where its bytes come from."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.archive import completeness, layout, secret_rules
from lockstep.archive.archived_study import include, named_as_archived, reproducible
from lockstep.archive.secret_rules import Rules
from lockstep.archive.source import Source
from lockstep.archive.zip_container import CHUNK, Damaged
from lockstep.errors import UserError
from lockstep.study import Study

TEXT = (".json", ".log", ".txt", ".csv", ".html", ".svg")
CODE = (".py", ".smk", ".j2", ".def", ".sh", ".md", ".rst", ".txt", ".html", ".css")
"""Of the source, where a word such as `password` before a text says nothing."""
BEGINNING = 8000

Clean = Callable[[bytes], bytes]


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file of an archive.

    Attributes:
        name: in the archive.
        size: in bytes, of what is written.
        path: where its bytes are; None if they are `content`.
        content: its bytes, of small files that were made.
        clean: what a text goes through whenever it is read, as it may be longer by then.
        sha256: of what is written, where that is known already.
        executable, link, rewritten: what ``archive.json`` says of it.
    """

    name: str
    size: int
    path: Path | None = None
    content: bytes = b""
    clean: Clean | None = None
    sha256: str | None = None
    executable: bool = False
    link: bool = False
    rewritten: bool = False

    def pieces(self) -> Iterator[bytes]:
        """Yield its bytes in pieces."""
        if self.path is None:
            yield self.content
            return
        with open(self.path, "rb", buffering=0) as stream:
            if self.clean is not None:
                yield from map(self.clean, secret_rules.parts(stream))
                return
            while piece := stream.read(CHUNK):
                yield piece

    def checked(self, pieces: Iterator[bytes], total: Any) -> Iterator[bytes]:
        """Yield its pieces and hash them.

        Raises:
            Damaged: they are not what they were when the file was collected.
        """
        for piece in pieces:
            total.update(piece)
            yield piece
        if self.sha256 not in (None, total.hexdigest()):
            raise Damaged(f"{self.name}: changes while it is archived")


def items(study: Study, source: Source, rules: Rules) -> list[Item]:
    """Return everything but what archiving makes itself, sorted by name.

    Raises:
        UserError: a secret or a link to a place of this machine is in what cannot be rewritten.
    """
    found = [*_source(source, rules), *_outside(study), *_results(study, rules)]
    found += _data(study, rules)
    # In the config's own order: parity is measured against the first variant.
    config = json.dumps(reproducible(study.config), indent=1, allow_nan=False) + "\n"
    found.append(_made(layout.STUDY, rules.clean(config.encode())))
    return sorted(found, key=lambda item: item.name)


def _outside(study: Study) -> Iterator[Item]:
    """Yield the code of workloads and sources outside of the package, as if it lay there."""
    for entry in study.config["workloads"].values():
        for path in sorted(Path(entry["folder"]).rglob("*.py")) if entry.get("folder") else ():
            inner = path.relative_to(entry["folder"]).as_posix()
            yield _as_it_is(f"{layout.PACKAGE}workloads/{entry['workload']}/{inner}", path)
    for entry in study.config["datasets"].values():
        if entry.get("file"):
            name = f"{layout.PACKAGE}datasets/sources/{entry['source']}.py"
            yield _as_it_is(name, Path(entry["file"]))


def _made(name: str, content: bytes, **notes: Any) -> Item:
    return Item(name=name, size=len(content), content=content, **notes)


def _text(name: str, path: Path, clean: Clean, **notes: Any) -> Item:
    """Return a text as it may be archived."""
    size, rewritten, total = 0, False, hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        for part in secret_rules.parts(stream):
            cleaned = clean(part)
            size += len(cleaned)
            rewritten = rewritten or cleaned != part
            total.update(cleaned)
    how = clean if rewritten else None
    return Item(name=name, path=path, size=size, clean=how, sha256=total.hexdigest(),
                rewritten=rewritten, **notes)  # fmt: skip


def _as_it_is(name: str, path: Path, **notes: Any) -> Item:
    return Item(name=name, path=path, size=path.stat().st_size, **notes)


# The source -----------------------------------------------------------------------------------


def _source(source: Source, rules: Rules) -> Iterator[Item]:
    """Yield the files of the checkout; paths of this machine are replaced where no hash binds them.

    There, /root is nobody's name.
    """
    paths = tuple(pair for pair in rules.paths if pair[0] != b"/root")
    rules = Rules(values=rules.values, paths=paths)
    for name in source.files:
        path, target = source.root / name, layout.SOURCE + name
        if secret_rules.FILES.fullmatch(path.name):
            raise UserError(
                f"{path}: is called like a file of keys or passwords; remove it from the repository"
            )
        if path.is_symlink():
            leads = rules.without_paths(os.fsencode(path.readlink()))
            if leads.startswith(b"/"):
                raise UserError(
                    f"{path}: is a link to a place of this machine, {os.fsdecode(leads)}; make "
                    "it a relative one within the checkout, or remove it"
                )
            yield _made(target, leads, link=True)
            continue
        executable = bool(path.stat().st_mode & 0o100)
        with open(path, "rb") as stream:
            binary = b"\0" in stream.read(BEGINNING)
        if binary:
            yield _as_it_is(target, path, executable=executable)
            continue
        _stop_at_secrets(path, rules, assigned=not name.endswith(CODE))
        bound = name.startswith(("workflow/lockstep/", "containers/"))
        if name.startswith("containers/") and secret_rules.HOMES.search(path.read_bytes()):
            raise UserError(
                f"{path}: names a home folder, and cannot be rewritten, as images have its hash; "
                "take it out"
            )
        clean = (lambda text: text) if bound else rules.without_paths
        yield _text(target, path, clean, executable=executable)


def _stop_at_secrets(path: Path, rules: Rules, *, assigned: bool) -> None:
    """Refuse a text that holds a secret, by the line and the kind."""
    before = 0
    with open(path, "rb", buffering=0) as stream:
        for part in secret_rules.parts(stream):
            for place, kind in sorted(rules.secrets(part, assigned=assigned)):
                line = before + part.count(b"\n", 0, place) + 1
                raise UserError(
                    f"{path}, line {line}: looks like a secret ({kind}); remove it, and revoke it "
                    "if it was published (a line of the source that holds none: add a comment "
                    f"`{secret_rules.ALLOWED.decode()}`)"
                )
            before += part.count(b"\n")


# Results and data -----------------------------------------------------------------------------


def _results(study: Study, rules: Rules) -> Iterator[Item]:
    wanted = {"": True, **include(study.config)}
    bound, named = _bound(study), layout.named(study)
    for path in _walk(study.root):
        below = path.relative_to(study.root).as_posix()
        part = layout.part(below)
        if part is None or not wanted[part]:
            continue
        if below.startswith(layout.NAMED_BY_CONFIG) and below not in named:
            continue  # of a variant or a seed that the config had once
        name = f"{layout.RESULTS}{study.name}/{below}"
        if not below.endswith(TEXT):
            yield _as_it_is(name, path)
        elif below in bound:
            # What only may be a secret must not keep a study from being archived.
            _stop_at_secrets(path, rules, assigned=False)
            item = _text(name, path, rules.without_paths)
            if item.rewritten:
                raise UserError(
                    f"{path}: names a folder of this machine, and cannot be rewritten, as other "
                    "records have its hash; make it again without"
                )
            yield item
        else:
            yield _text(name, path, rules.clean)


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


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(
            n for n in folders if n not in ("cache", "checkpoints", "states", "wandb")
        )
        for name in sorted(names):
            path = Path(folder) / name
            if path.is_file() and not name.startswith("."):
                yield path


def _data(study: Study, rules: Rules) -> Iterator[Item]:
    """Yield manifests of the datasets and images that config and records name, and what is asked
    for of them.
    """
    wanted = include(study.config)
    for folder in _data_folders(study):
        target = f"{layout.DATA}{folder.parent.name}/{folder.name}/"
        manifest = folder / "manifest.json"
        yield _text(target + "manifest.json", manifest, rules.clean)
        if folder.parent.name == "images":
            names = ["image.sif"] if wanted["images"] else []
        else:
            names = sorted(completeness.shards(_json(manifest))) if wanted["data"] else []
        yield from (_as_it_is(target + n, folder / n) for n in names if (folder / n).is_file())


def _data_folders(study: Study) -> list[Path]:
    def read(name: str) -> Any:
        below = name.removeprefix(f"{layout.RESULTS}{study.name}/")
        return _json(study.root / below)

    named = completeness.data_folders(named_as_archived(study.config), read)
    wanted = {f"{kind}/{name}-{identity}" for kind, name, identity in named if identity}
    datasets = {study.workload(workload)["dataset"] for workload in study.config["workloads"]}
    found = {study.dataset_folder(name) for name in datasets}
    found |= {image.folder for image in study.images.values()}
    for path in study.data.glob("*/*/manifest.json"):
        name, _, identity = path.parent.name.rpartition("-")
        name = name.partition("-cuda")[0].removesuffix("-ready")
        if f"{path.parent.parent.name}/{name}-{identity}" in wanted:
            found.add(path.parent)
    return sorted(folder for folder in found if (folder / "manifest.json").is_file())


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def as_archived(found: Mapping[str, Item]) -> Callable[[str], Any]:
    """Return what reads the JSON of collected files as the archive will have them."""

    def read(name: str) -> Any:
        try:
            return json.loads(b"".join(found[name].pieces()))
        except (KeyError, ValueError, RecursionError):
            return None

    return read
