"""What verifying found, one line per check and one per finding; and the first two checks, which
need the standard library only.
"""

import concurrent.futures
import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lockstep.archive import layout
from lockstep.archive.archive_reader import Archive, printable
from lockstep.archive.zip_container import Damaged
from lockstep.errors import UserError

SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Check:
    """One of the things that are checked.

    Attributes:
        name: of the check.
        says: what holds.
        wrong: what does not hold, each naming the file and, where it is of one, the run.
        skipped: whether it could not be checked; `says` then has the reason.
    """

    name: str
    says: str
    wrong: Sequence[str] = ()
    skipped: bool = False

    def lines(self) -> list[str]:
        """Return what a person sees."""
        if not self.wrong:
            status = "skipped" if self.skipped else "holds"
            return [f"{status:7}  {self.name}: {printable(self.says)}"]
        more = [f"and {len(self.wrong) - SHOWN} more"] if len(self.wrong) > SHOWN else []
        count = f"{len(self.wrong)} finding{'s' * (len(self.wrong) > 1)}"
        found = [*self.wrong[:SHOWN], *more]
        return [f"FAILS    {self.name}: {count}", *(f"           {printable(w)}" for w in found)]


def guarded(where: str, check: Callable[..., Iterable[str]], *given: Any) -> Iterator[str]:
    """Yield what `check` finds of one file.

    Whatever a damaged file raises in it is a finding, but for a disk that cannot be read.
    """
    try:
        yield from check(*given)
    except (OSError, Damaged, ImportError):
        raise
    except Exception as error:
        yield f"{where}: cannot be used ({error!r:.300})"


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
