"""An archive opened to be read, as a file or as the folder that it was unzipped into.

Nothing of it is used before it was checked, nothing is executed or unpickled.
"""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.archive import layout
from lockstep.archive.check_result import Check, printable, reason
from lockstep.archive.zip_container import CHUNK, Damaged
from lockstep.archive.zip_container import Reader as ZipReader
from lockstep.errors import UserError
from lockstep.report import record_schema

SPARE = 1 << 24
LONGEST_LINK = 4096  # with the zero at its end


class FolderReader:
    """A folder into which an archive was unzipped. Links are not followed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sizes: dict[str, int] = {}
        self.flaws: list[tuple[str, str]] = []
        for path in sorted(_files(folder)):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink() or not path.is_file():
                self.flaws.append((name, "is not a regular file"))
            else:
                self.sizes[name] = path.stat().st_size

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yield a file's content."""
        with open(self.folder / name, "rb", buffering=0) as stream:
            while piece := stream.read(CHUNK):
                yield piece

    def checksum(self, name: str) -> None:
        """Return None: a folder has no checksums of its own."""


def _files(folder: Path) -> Iterator[Path]:
    def stop(error: OSError) -> None:
        raise error

    for top, folders, names in os.walk(folder, onerror=stop):
        yield from (Path(top, name) for name in names)
        yield from (Path(top, name) for name in folders if Path(top, name).is_symlink())


Reader = ZipReader | FolderReader


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive whose form is known.

    Attributes:
        path: of the file or the folder.
        sha256: of the file itself; None for a folder.
        hashes: sha256 of every file but `layout.HASHES`, by name.
        about: the content of ``archive.json``, checked by its schema only.
    """

    path: Path
    reader: Reader
    sha256: str | None
    hashes: Mapping[str, str]
    about: Mapping[str, Any]

    @property
    def study(self) -> str:
        """The study's name."""
        return str(self.about["study"])

    def bytes_of(self, name: str) -> bytes:
        """Return a file's whole content."""
        return b"".join(self.reader.pieces(name))

    def json_of(self, name: str) -> Any:
        """Return a file's JSON; None if it is missing or is not JSON."""
        if name not in self.reader.sizes:
            return None
        try:
            return json.loads(self.bytes_of(name))
        except (ValueError, RecursionError):
            return None


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Open an archive: what is checked and what is used later are of one open file.

    Raises:
        UserError: it cannot be read, is not an archive, or has names that must not be written.
    """
    try:
        with contextlib.ExitStack() as stack:
            yield _open(path, stack)
    except Damaged as problem:
        why = printable(str(problem))
        raise UserError(f"{path}: not a whole archive of Lockstep: {why}") from problem
    except OSError as error:
        where = error.filename or path
        raise UserError(f"{where}: cannot be read, {reason(error)}") from error


def _open(path: Path, stack: contextlib.ExitStack) -> Archive:
    if not path.exists():
        raise UserError(f"{path}: no such file")
    reader: Reader
    sha256 = None
    if path.is_dir():
        reader = FolderReader(path)
    else:
        stream = stack.enter_context(path.open("rb"))
        reader = ZipReader(stream)
        stream.seek(0)
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    names = reader.sizes
    unsafe = layout.unsafe(names)
    if unsafe:
        raise UserError(f"{path}: holds {unsafe}; it was not opened")
    if layout.HASHES not in names:
        raise UserError(f"{path}: {_former(reader)}")
    for name, size in names.items():
        why = layout.too_large(name, size)
        if why:
            raise UserError(f"{path}: {name} {why}")
    hashes = _hashes(b"".join(reader.pieces(layout.HASHES)), path)
    archive = Archive(path=path, reader=reader, sha256=sha256, hashes=hashes, about={})
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
    return Archive(path=path, reader=reader, sha256=sha256, hashes=hashes, about=about)


def _former(reader: Reader) -> str:
    """Return what a file is that is no archive of this version."""
    try:
        if reader.sizes[layout.FORMER_MANIFEST] > layout.LARGEST_LIST:
            raise ValueError
        told = json.loads(b"".join(reader.pieces(layout.FORMER_MANIFEST)))
        schema, version = told["schema"], told["lockstep"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return f"not an archive of Lockstep, it holds no {layout.HASHES}"
    return printable(
        f"was made by Lockstep {version!s:.20}, in the former format {schema!s:.40}; verify it "
        "with the version in its source/, or archive the study again with this one"
    )


LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def _hashes(content: bytes, path: Path) -> dict[str, str]:
    """Return the sha256 of each listed file, as `sha256sum` writes it."""
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: {layout.HASHES} is not text ({error})") from error
    found = {}
    for line in lines:
        match = LINE.fullmatch(line)
        if match is None or match[2] in found:
            raise UserError(f"{path}: {layout.HASHES} has no hash in the line {printable(line)!r}")
        found[match[2]] = match[1]
    return found


def listing(hashes: Mapping[str, str]) -> bytes:
    """Return the content of `layout.HASHES`, which `sha256sum -c` reads."""
    return "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode()


# The first two checks -------------------------------------------------------------------------


def container(archive: Archive, sha256: str | None = None) -> Check:
    """Is every byte accounted for, and is it the file that was published?

    Args:
        sha256: that the file was published with.

    Raises:
        UserError: `sha256` is given for a folder.
    """
    reader = archive.reader
    wrong = [f"{name}: {why}" for name, why in reader.flaws]
    if sha256 is not None and archive.sha256 is None:
        raise UserError(
            f"{archive.path}: --sha256 is of the archive's file, and this is a folder; verify the "
            "file, or compare the folder with `sha256sum -c manifest-sha256.txt`"
        )
    if sha256 is not None and archive.sha256 != sha256.strip().lower():
        wrong.insert(0, f"{archive.path.name}: has sha256 {archive.sha256}, not the one published")
    listed, there = {*archive.hashes, layout.HASHES}, {*reader.sizes}
    wrong += [f"{name}: is listed, but missing" for name in sorted(listed - there)]
    wrong += [f"{name}: is not listed in {layout.HASHES}" for name in sorted(there - listed)]
    own = f"sha256 {archive.sha256}" if archive.sha256 else "an unzipped folder"
    published = ", as published" if sha256 else ""
    says = f"{len(reader.sizes)} files, no byte besides; {own}{published}"
    return Check(name="container", says=says, wrong=wrong)


def content(archive: Archive) -> Check:
    """Has every file its listed sha256? Hashed on as many cores as there are."""
    reader = archive.reader

    def wrong(name: str) -> str | None:
        total, crc = hashlib.sha256(), 0
        for piece in reader.pieces(name):
            total.update(piece)
            crc = zlib.crc32(piece, crc)
        if name != layout.HASHES and total.hexdigest() != archive.hashes[name]:
            return f"{name}: was changed (its sha256 is not the one in {layout.HASHES})"
        return None if reader.checksum(name) in (None, crc) else f"{name}: its CRC-32 is wrong"

    names = [name for name in reader.sizes if name in archive.hashes or name == layout.HASHES]
    names.sort(key=lambda name: (-reader.sizes[name], name))  # no core ends with a large one
    with concurrent.futures.ThreadPoolExecutor(min(8, len(os.sched_getaffinity(0)))) as pool:
        found = sorted(problem for problem in pool.map(wrong, names) if problem)
    size = sum(reader.sizes[name] for name in names) / 1e6
    says = f"{len(names)} files, {size:.1f} MB, have the listed sha256"
    return Check(name="content", says=says, wrong=found)


# Extracting -----------------------------------------------------------------------------------


def extract(
    archive: Archive,
    wanted: Callable[[str], bool],
    folder: Path,
    *,
    strip: str = "",
    places: Mapping[str, str] | None = None,
) -> None:
    """Write files of an archive into a folder; what is executable or a link as it was.

    Args:
        wanted: of which names.
        strip: what names begin with that is left away.
        places: where files go instead, below the folder.

    Raises:
        UserError: there is no room for them, a link leads out of the folder, or the archive has
            been changed since it was verified.
    """
    names = [name for name in archive.reader.sizes if wanted(name)]
    size = sum(archive.reader.sizes[name] for name in names)
    free = shutil.disk_usage(folder).free
    if size + SPARE > free:
        raise UserError(
            f"{folder}: {size >> 20} MiB are to be written, {free >> 20} MiB are free; free some "
            "space, or name another place (TMPDIR)"
        )
    links, executable = ({*archive.about[key]} for key in ("links", "executable"))
    for name in names:
        path = folder / (places or {}).get(name, name.removeprefix(strip))
        target = _target(archive, name, path, folder) if name in links else None
        total = hashlib.sha256()
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if target is not None:
                path.symlink_to(target)
                continue
            stream = path.open("xb")
        with stream:
            for piece in archive.reader.pieces(name):
                total.update(piece)
                with _writing(path):
                    stream.write(piece)
            with _writing(path):
                stream.flush()
        if name in executable:
            path.chmod(0o755)
        if total.hexdigest() != archive.hashes.get(name):
            raise UserError(f"{archive.path}: {name} was changed after it was verified")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say of what is made in the block that it cannot be."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written, {reason(error)}; free some space, or name another place "
            "(TMPDIR)"
        ) from error


def _target(archive: Archive, name: str, path: Path, folder: Path) -> str:
    """Return where a link leads, which must be within the folder."""
    where = f"{archive.path}: {name}"
    if archive.reader.sizes[name] >= LONGEST_LINK:
        raise UserError(f"{where}: too long for a link; it was not made")
    content = archive.bytes_of(name)
    if hashlib.sha256(content).hexdigest() != archive.hashes.get(name):
        raise UserError(f"{where} was changed after it was verified")
    target = os.fsdecode(content)
    leads = Path(os.path.normpath(path.parent / target))
    # Behind a name, `..` leads out of wherever that name leads to, which may be a link itself.
    bad = not target or "\0" in target or ".." in target.lstrip("./").split("/")
    if bad or target.startswith("/") or not leads.is_relative_to(folder):
        raise UserError(f"{where}: a link out of its folder; it was not made")
    return target
