"""Where examples come from: one module a source, found by its name.

A source module may have

`fetch(raw)`          download the raw files into the folder `raw` (absent if nothing is needed),
`check(options)`      raise UserError, beginning with ``options.KEY``, where its options in a config
                      are wrong (absent if it has none),

and has, if a split fits into memory,

`LICENCE`, `ORIGIN`   strings that go into every shard,
`CLASSES`             names of the classes, in the order of the labels,
`read(raw, options)`  yield `(split, images, labels)`, images uint8
                      ``(N, height, width, channels)``, labels integers ``(N,)``; checks the raw
                      files and raises UserError;

or, if it has one file an example,

`survey(raw, options)`      return a `Survey`: which files there are, with their labels; raises
                            UserError,
`decode(content, options)`  return the image, uint8 ``(height, width, channels)``, that a file's
                            bytes hold, and a list of what was done to it that is worth counting;
                            raises `Undecodable`. Processes do it in parallel, shard by shard.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from lockstep.errors import UserError, nearest


def names() -> list[str]:
    """Return the names of all sources, sorted."""
    return sorted(
        path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")
    )


def check(where: str, name: str) -> None:
    """Raise UserError unless there is a source of this name."""
    if name not in names():
        raise UserError(f"{where}.source is {name!r}, which is unknown; {nearest(name, names())}")


def load(name: str) -> ModuleType:
    """Return a source's module."""
    check("datasets", name)
    return importlib.import_module(f"lockstep.datasets.sources.{name}")


def check_options(where: str, name: str, options: Mapping[str, Any]) -> None:
    """Raise UserError unless the source understands its options.

    Where its module cannot be imported, as on a login node without what decodes images, the stage
    that reads the files says it.
    """
    try:
        check_them = getattr(load(name), "check", None)
    except ModuleNotFoundError:
        return
    try:
        if check_them:
            check_them(options)
        elif options:
            raise UserError(f"options.{min(options)} is unknown; source {name} has no options")
    except UserError as error:
        raise UserError(f"{where}.{error}") from error


def downloads(name: str, package: Path | None = None) -> bool:
    """Whether a source has raw files to download; read from its text, to import nothing.

    Args:
        package: another package's folder, whose source is meant.
    """
    folder = package / "datasets" / "sources" if package else Path(__file__).parent
    return "\ndef fetch(" in (folder / f"{name}.py").read_text()
