"""An archive opened to be read: nothing of it is believed before it was checked."""

import concurrent.futures
import contextlib
import hashlib
import itertools
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lockstep.archive import container, layout, manifest, names, scan
from lockstep.archive.container import Member
from lockstep.archive.findings import Check, printable, reason
from lockstep.errors import UserError

LARGE_TEXT = 1 << 28
LARGE_RECORD = 1 << 26  # of one job, run or table; verifying takes some twenty times as much memory
SPARE = 1 << 24
LONGEST_LINK = 4096  # with the zero at its end


@dataclass(frozen=True, kw_only=True)
class Opened:
    """An archive.

    Attributes:
        manifest: None if it cannot be believed.
        checks: of the file's form and of the manifest.
    """

    path: Path
    reader: scan.Reader
    manifest: dict[str, Any] | None
    checks: list[Check]

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """The manifest's lines, by name."""
        return dict(self.manifest["files"]) if self.manifest else {}


def read(path: Path, stream: BinaryIO) -> Opened:
    """Read an archive's form and its manifest.

    Raises:
        UserError: it is not an archive, is cut short, or has members that must not be touched.
    """
    try:
        reader = scan.Reader(stream)
    except container.Malformed as problem:
        why = printable(str(problem))
        raise UserError(f"{path}: not a whole archive of Lockstep: {why}") from problem
    count = len(reader.members)
    form = Check(
        name="form",
        says=f"{count} members, every byte of the file is accounted for",
        wrong=[f"{name}: {why}" for name, why in reader.flaws],
    )
    refusal = _refusal(reader)
    if refusal and not form.wrong:
        raise UserError(f"{path}: {refusal}")
    if refusal:  # a changed byte may have made the name: the finding says where
        return Opened(path=path, reader=reader, manifest=None, checks=[form])
    checks = [form]
    found, wrong = None, []
    member = reader.members[layout.MANIFEST]
    content = reader.bytes_of(layout.MANIFEST)
    if zlib.crc32(content) != member.crc:
        wrong.append(f"{layout.MANIFEST}: its content is not that of its checksum")
    try:
        found = manifest.read(content)
    except ValueError as problem:
        wrong.append(f"{layout.MANIFEST}: {problem}")
    else:
        listed = set(found["files"]) | {layout.MANIFEST}
        wrong += [
            f"{name}: is listed, but not there" for name in sorted(listed - {*reader.members})
        ]
        wrong += [
            f"{name}: is there, but not listed" for name in sorted({*reader.members} - listed)
        ]
    digest = found["digest"] if found else ""
    checks.append(
        Check(name="manifest", says=f"complete and unchanged, digest {digest}", wrong=wrong)
    )
    return Opened(path=path, reader=reader, manifest=found, checks=checks)


def _refusal(reader: scan.Reader) -> str | None:
    """Return why the members must not be touched, by their names and sizes; None if they may."""
    flaw = names.flaw(reader.members)
    if flaw:
        return f"holds {flaw}; not touched"
    for needed in (layout.MANIFEST, layout.CRATE):
        if needed not in reader.members:
            return f"not an archive of Lockstep, it holds no {needed}"
        if reader.members[needed].size > LARGE_TEXT:
            return f"its {needed} is larger than any that is believed"
    for name, member in reader.members.items():
        why = too_large(name, member.size)
        if why:
            return f"{name} {why}; not touched"
    return None


def too_large(name: str, size: int) -> str | None:
    """Return why a file is too large to be read into memory as a whole; None if it is not."""
    apart = name.startswith(layout.SOURCE) or name in (layout.MANIFEST, layout.CRATE)
    if apart or not name.endswith((".json", ".csv")) or size <= LARGE_RECORD:
        return None
    limit = LARGE_RECORD >> 20
    return f"has {size >> 20} MiB, more than the {limit} MiB that are believed of a record"


def hashes(opened: Opened) -> Check:
    """Hash every file and compare with the manifest, on as many cores as there are."""
    listed = opened.files
    members = [m for m in opened.reader.members.values() if m.name in listed]
    # The largest first, so that no core is left with one of them at the end.
    members.sort(key=lambda member: (-member.size, member.name))

    def wrong(member: Member) -> str | None:
        line = listed[member.name]
        if member.size != line["bytes"]:
            return f"{member.name}: has {member.size} bytes instead of {line['bytes']}"
        total, crc = hashlib.sha256(), 0
        for piece in opened.reader.content(member):
            total.update(piece)
            crc = zlib.crc32(piece, crc)
        if total.hexdigest() != line["sha256"]:
            return f"{member.name}: was changed (sha256 differs)"
        return (
            None if crc == member.crc else f"{member.name}: its CRC-32 is not that of its content"
        )

    workers = min(8, len(os.sched_getaffinity(0)))
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        found = [problem for problem in pool.map(wrong, members) if problem]
    size = sum(member.size for member in members)
    return Check(
        name="content",
        says=f"{len(members)} files, {size / 1e6:.1f} MB have the listed sha256",
        wrong=sorted(found),
    )


def extract(
    opened: Opened,
    wanted: Callable[[str], bool],
    folder: Path,
    *,
    strip: str = "",
    places: Mapping[str, str] | None = None,
) -> None:
    """Write files of an archive into a folder; links and what may be executed as they were.

    Args:
        wanted: of which names.
        strip: what names begin with that is left away.
        places: where else files go than to their names, below the folder.

    Raises:
        UserError: there is no room for them, a link leads out of the folder, or the archive is
            being changed.
    """
    members = [m for name, m in opened.reader.members.items() if wanted(name)]
    room(folder, sum(member.size for member in members))
    lines = opened.files
    for member in members:
        path = folder / (places or {}).get(member.name, member.name.removeprefix(strip))
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        line = lines.get(member.name, {})
        if line.get("link"):
            _link(opened, member, path, folder, line)
            continue
        with _writing(path):
            sha256 = _write(opened, member, path)
        _check_read(opened, member, line, sha256)
        if line.get("executable"):
            path.chmod(0o755)


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


def _write(opened: Opened, member: Member, path: Path) -> str:
    """Write a member's content; returns its sha256."""
    total = hashlib.sha256()
    with open(path, "xb") as stream:
        for piece in opened.reader.content(member):
            total.update(piece)
            stream.write(piece)
    return total.hexdigest()


def _check_read(opened: Opened, member: Member, line: Mapping[str, Any], sha256: str) -> None:
    """Refuse what is not what it was when it was verified."""
    if sha256 != line.get("sha256", sha256):
        raise UserError(
            f"{opened.path}: {member.name}: is not what the manifest says; is it being written?"
        )


def room(folder: Path, size: int) -> None:
    """Refuse to write what there is no room for.

    Raises:
        UserError: says how much is needed and how much is free.
    """
    free = shutil.disk_usage(folder).free
    if size + SPARE > free:
        raise UserError(
            f"{folder}: {size >> 20} MiB are to be written, {free >> 20} MiB are free; free some "
            "space, or name another place (TMPDIR)"
        )


def _link(
    opened: Opened, member: Member, path: Path, folder: Path, line: Mapping[str, Any]
) -> None:
    if member.size >= LONGEST_LINK:
        raise UserError(f"{opened.path}: {member.name}: too long for a link; not touched")
    content = b"".join(opened.reader.content(member))
    if not content or b"\0" in content:
        raise UserError(f"{opened.path}: {member.name}: a link to no name; not touched")
    _check_read(opened, member, line, hashlib.sha256(content).hexdigest())
    target = os.fsdecode(content)
    leads = Path(os.path.normpath(path.parent / target))
    # Behind a name, `..` leads out of wherever that name leads to, which may be a link itself.
    down = itertools.dropwhile(lambda part: part in ("", ".", ".."), target.split("/"))
    if Path(target).is_absolute() or ".." in down or not leads.is_relative_to(folder):
        raise UserError(f"{opened.path}: {member.name}: a link out of its folder; not touched")
    try:
        path.symlink_to(target)
    except OSError as error:  # such as a name in it that is too long
        why = reason(error)
        raise UserError(f"{opened.path}: {member.name}: no link can be made, {why}") from error


def below(*tops: str) -> Callable[[str], bool]:
    """Return whether names begin with one of `tops`."""
    return lambda name: name.startswith(tops)
