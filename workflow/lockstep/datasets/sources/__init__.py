"""Where examples come from: one module a source, found by its name, or a file by its path.

A source module may have

`fetch(raw)`          download the raw files into the folder `raw` (absent if nothing is needed),
`check(options)`      raise UserError, beginning with ``options.KEY``, where its options in a config
                      are wrong (absent if it has none),

and has, if a split fits into memory,

`LICENCE`, `ORIGIN`   strings that go into every shard,
`EXAMPLES`            how many are for training, if that is known beforehand (may be absent),
`CLASSES`             names of the classes, in the order of the labels, if there are labels,
`read(raw, options)`  yield `(split, arrays)`: arrays ``(N, …)`` by name, of the types in
                      `lockstep.datasets.arrays`, or `Ragged`; the same in each split. Images are
                      `image`, uint8 ``(N, height, width, channels)``, and labels `label`, int32
                      ``(N,)``. Checks the raw files and raises UserError,
`describe(raw, options)`   return what else is to be known: facts for the manifest (small, as JSON),
                      and bytes by name, uint8 ``(n,)``, that each shard holds as ``extra/NAME``
                      (absent if there is nothing). It is called when the first split is there;

or, if it has one file an example,

`survey(raw, options)`      return a `Survey`: which files there are, with their labels; raises
                            UserError,
`decode(content, options)`  return the image, uint8 ``(height, width, channels)``, that a file's
                            bytes hold, and a list of what was done to it that is worth counting;
                            raises `Undecodable`. Processes do it in parallel, shard by shard.
"""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from lockstep import code
from lockstep.errors import UserError, importing, nearest


def names() -> list[str]:
    """Return the names of all sources, sorted."""
    return sorted(
        path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_")
    )


def is_path(source: str) -> bool:
    """Whether a config's `source` is a file's path and not a name."""
    return "/" in source


def settle(entry: Mapping[str, Any]) -> None:
    """Make the file of a complete entry of a config known in this process, if it has one.

    Where that file is not there any more, as in an archive, it lies in this package.
    """
    file = entry.get("file")
    if file and Path(file).is_file():
        adopt(Path(file), where="datasets")


def adopt(path: Path, *, where: str) -> str:
    """Make a file the module ``lockstep.datasets.sources.NAME``; returns the name.

    Raises:
        UserError: it is no Python file, or its name is taken.
    """
    path = path.resolve()
    name, module = path.stem, f"lockstep.datasets.sources.{path.stem}"
    known = code.elsewhere(module)
    if known == path:
        return name
    if not path.is_file() or path.suffix != ".py":
        raise UserError(f"{where}.source is {path}, which is no Python file")
    if not name.isidentifier() or known is not None or name in names():
        raise UserError(
            f"{where}.source is {path}, whose name is that of another source or none; rename it"
        )
    code.place(module, path)
    return name


def check(where: str, name: str) -> None:
    """Raise UserError unless there is a source of this name, or `adopt` has made it known."""
    if code.elsewhere(f"lockstep.datasets.sources.{name}") is None and name not in names():
        raise UserError(f"{where}.source is {name!r}, which is unknown; {nearest(name, names())}")


def load(name: str) -> ModuleType:
    """Return a source's module.

    Raises:
        UserError: there is none of this name, or its file, which lies elsewhere, is no source.
    """
    check("datasets", name)
    module = f"lockstep.datasets.sources.{name}"
    path = code.elsewhere(module)
    if path is None or module in sys.modules:
        return importlib.import_module(module)
    found = importlib.util.spec_from_file_location(module, path)
    assert found is not None and found.loader is not None
    sys.modules[module] = made = importlib.util.module_from_spec(found)
    try:
        with importing(path, "datasets"):
            found.loader.exec_module(made)
    except Exception:
        del sys.modules[module]
        raise
    if not (hasattr(made, "read") or {"survey", "decode"} <= vars(made).keys()):
        raise UserError(
            f"datasets: {path} is no source: it has neither read(raw, options), nor survey and "
            "decode (docs/adding-a-workload.md)"
        )
    return made


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
    path = None if package else code.elsewhere(f"lockstep.datasets.sources.{name}")
    return "\ndef fetch(" in (path or folder / f"{name}.py").read_text()
