"""An archive opened to be read, as a file or as the folder that it was unzipped into.

Nothing of it is used before it was checked, nothing is executed or unpickled.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lockstep.archive import layout
from lockstep.archive.zip_container import CHUNK, Damaged, reason
from lockstep.archive.zip_container import Reader as ZipReader
from lockstep.errors import UserError
from lockstep.records import record_schema


class FolderReader:
    """A folder into which an archive was unzipped. Links are not followed."""

    crcs: Mapping[str, int] = {}  # it has none

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sizes: dict[str, int] = {}
        self.flaws: list[tuple[str, str]] = []
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if path.is_file() and not path.is_symlink():
                self.sizes[name] = path.stat().st_size
            elif path.is_symlink() or not path.is_dir():
                self.flaws.append((name, "is not a regular file"))

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a file's content.

        Raises:
            OSError: it cannot be read.
        """
        with open(self.folder / name, "rb", buffering=0) as stream:
            while piece := stream.read(CHUNK):
                yield piece


Reader = ZipReader | FolderReader


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive whose form is known."""

    path: Path  # of the file or the folder
    reader: Reader
    sha256: str | None  # of the file itself; None for a folder
    hashes: Mapping[str, str]  # sha256 of every file but `layout.HASHES`, by name.
    about: Mapping[str, Any]  # the content of ``archive.json``, checked by its schema only.

    @property
    def study(self) -> str:
        """The study's name."""
        return str(self.about["study"])

    def bytes_of(self, name: str) -> bytes:
        """Return a file's whole content."""
        return b"".join(self.reader.pieces(name))

    def json_of(self, name: str) -> Any:
        """Return a file's JSON; None if it is missing or is not JSON."""
        return layout.parsed(self.bytes_of(name)) if name in self.reader.sizes else None

    def verified(self, name: str) -> Iterator[bytes]:
        """Yield a file's content in pieces.

        Raises:
            Damaged: it cannot be read.
            UserError: at the end, if it has not its listed hash.
        """
        total = hashlib.sha256()
        try:
            for piece in self.reader.pieces(name):
                total.update(piece)
                yield piece
        except OSError as error:  # or one could think that it cannot be written
            raise Damaged(f"{name}: cannot be read, {reason(error)}") from error
        if total.hexdigest() != self.hashes.get(name):
            raise UserError(f"{self.path}: {name} was changed after it was verified")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Open an archive: what is checked and what is used later are of one open file.

    Raises:
        UserError: it cannot be read, is not an archive, or has names that must not be written.
    """
    try:
        if path.is_dir():
            yield _described(path, FolderReader(path), None)
            return
        with path.open("rb") as stream:
            reader = ZipReader(stream)
            stream.seek(0)
            yield _described(path, reader, hashlib.file_digest(stream, "sha256").hexdigest())
    except Damaged as problem:
        raise UserError(f"{path}: {printable(str(problem))}") from problem
    except BrokenPipeError:  # of who reads what is said of the archive
        raise
    except OSError as error:
        where = error.filename or path
        raise UserError(f"{where}: cannot be read, {reason(error)}") from error


def _described(path: Path, reader: Reader, sha256: str | None) -> Archive:
    """Return an archive, after its names, its sizes and what it says of itself were checked."""
    unsafe = layout.unsafe(reader.sizes)
    if unsafe:
        raise UserError(f"{path}: holds {unsafe}; it was not opened")
    for name, size in reader.sizes.items():
        if too_large := layout.too_large(name, size):
            raise UserError(f"{path}: {name} {too_large}")
    archive = Archive(path=path, reader=reader, sha256=sha256, hashes={}, about={})
    if layout.HASHES not in reader.sizes:
        raise UserError(f"{path}: {_former(archive)}")
    about = archive.json_of(layout.ABOUT)
    if not isinstance(about, dict):
        raise UserError(f"{path}: {layout.ABOUT} is missing, or is not JSON")
    if about.get("schema") != layout.SCHEMA:
        raise UserError(
            f"{path}: has schema {about.get('schema')!r:.40}; this version of Lockstep reads "
            f"{layout.SCHEMA} (use the version that is in its source/)"
        )
    field = record_schema.unsound(about, record_schema.ARCHIVE)
    if field is not None:
        raise UserError(f"{path}: {layout.ABOUT}: field {field!r} is missing or not of its kind")
    return replace(archive, about=about, hashes=_hashes(archive))


def _former(archive: Archive) -> str:
    """Return what a file is that is no archive of this version."""
    told = archive.json_of("manifest.json")  # of lockstep-archive/1
    if not isinstance(told, dict) or "lockstep" not in told:
        return f"not an archive of Lockstep, it holds no {layout.HASHES}"
    return printable(
        f"was made by Lockstep {told['lockstep']!s:.20}, in the former format "
        f"{told.get('schema')!s:.40}; verify it with the version in its source/, or archive the "
        "study again with this one"
    )


LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def _hashes(archive: Archive) -> dict[str, str]:
    """Return the sha256 of each listed file, as `sha256sum` writes it."""
    found: dict[str, str] = {}
    listed = archive.bytes_of(layout.HASHES).decode(errors="replace")
    for line in listed.removesuffix("\n").split("\n"):
        match = LINE.fullmatch(line)
        if match is None or match[2] in found:
            raise UserError(f"{archive.path}: {layout.HASHES} has no hash in {printable(line)!r}")
        found[match[2]] = match[1]
    return found


def listing(hashes: Mapping[str, str]) -> bytes:
    """Return the content of `layout.HASHES`, which `sha256sum -c` reads."""
    return "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode()


def printable(text: str) -> str:
    """Return a text of an archive as a terminal may be given it: nothing in it is a command."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


# Extracting -----------------------------------------------------------------------------------


def extract(archive: Archive, places: Mapping[str, str], folder: Path) -> None:
    """Write files of an archive into a folder; what is executable or a link as it was.

    Args:
        places: where files go, below the folder, by their names in the archive.

    Raises:
        UserError: they cannot be written, a link leads out of the folder, or the archive has been
            changed since it was verified.
    """
    for name, place in places.items():
        path = folder / place
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if name in archive.about["links"]:
                path.symlink_to(_target(archive, name, path, folder))
                continue
            with path.open("xb") as stream:
                stream.writelines(archive.verified(name))
            if name in archive.about["executable"]:
                path.chmod(0o755)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written, {reason(error)}; free some space, or name another "
                "place (TMPDIR)"
            ) from error


def _target(archive: Archive, name: str, path: Path, folder: Path) -> str:
    """Return where a link leads, which must be within the folder."""
    target = os.fsdecode(b"".join(archive.verified(name)))
    leads = Path(os.path.normpath(path.parent / target))
    # Behind a name, `..` leads out of wherever that name leads to, which may be a link itself.
    bad = not target or "\0" in target or ".." in target.lstrip("./").split("/")
    if bad or target.startswith("/") or not leads.is_relative_to(folder):
        raise UserError(f"{archive.path}: {name}: a link out of its folder; it was not made")
    return target
