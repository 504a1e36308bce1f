"""Whether what the files of an archive say holds: each against the others, and computed anew.

Apart from `verify`, as pandas and SciPy take longer to import than most archives to be hashed.
"""

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from lockstep.archive import (
    agree,
    completeness,
    included,
    layout,
    opened,
    publishing,
    recompute,
    settings,
    statements,
    strangers,
)
from lockstep.archive.findings import Check, attempted
from lockstep.archive.opened import Opened
from lockstep.errors import UserError


def numbers(archive: Opened) -> Sequence[Check]:
    """Return what holds of an archive whose files are the listed ones.

    Raises:
        UserError: it holds no config of a study that this version reads.
    """
    manifest, listed = archive.manifest, archive.files
    assert manifest is not None
    name = manifest["study"]
    below = f"{layout.RESULTS}{name}/"
    if f"{below}study.json" not in listed:
        raise UserError(f"{archive.path}: holds no config of study {name!r}")

    with tempfile.TemporaryDirectory(prefix="lockstep-verify-") as scratch:
        folder = Path(scratch).resolve()
        opened.extract(archive, lambda member: _is_read(member, name), folder)
        study = settings.study_in(folder, name)
        data = folder / "data"
        package = folder / "source" / "workflow" / "lockstep"
        again = functools.cache(lambda: recompute.again(study))
        checks: dict[str, Callable[[], Check]] = {
            "whole": lambda: completeness.whole(study, manifest, folder / layout.STUDY, package),
            "named": lambda: strangers.check(study, listed),
            "records": lambda: agree.records(study, listed, data),
            "data": lambda: included.data(archive, data),
            "weights": lambda: included.weights(study, archive),
            "source": lambda: agree.source(study, package),
            "described": lambda: statements.check(study, manifest, folder / layout.CRATE, data),
            "pages": lambda: publishing.check(study, manifest, folder / layout.CRATE, package),
            "parity": lambda: recompute.parity(study, package),
            "report": lambda: recompute.report(study, again),
            "page": lambda: recompute.shown(study, again, manifest, package),
        }
        return [attempted(name, check) for name, check in checks.items()]


def _is_read(member: str, study: str) -> bool:
    """Whether a file says something that can be compared with others, besides by its hash."""
    below = f"{layout.RESULTS}{study}/"
    if member.startswith(below):
        large = (layout.FINAL, ".log", "/log.txt")
        aside = (f"{below}report/figures/", f"{below}weights/")
        return not (member.startswith(aside) or member.endswith(large))
    if member.startswith(layout.DATA):
        return member.endswith("/manifest.json")
    code = f"{layout.SOURCE}workflow/lockstep/"
    return member in (layout.STUDY, layout.CRATE) or (
        member.startswith(code) and member.endswith((".py", ".j2", ".css"))
    )
