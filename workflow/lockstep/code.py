"""What code a stage runs, as one hash.

Snakemake sees neither a package's modules nor which of them a stage imports. So every stage takes
as a parameter the digest of its *closure*: the modules it imports within this package, as syntax
trees without docstrings and comments. An edited comment reruns nothing; an edited engine reruns
what it trained.
"""

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.name

_ELSEWHERE: dict[str, Path] = {}


def place(name: str, path: Path) -> None:
    """Say that a package of this name, or a module, lies outside of this package's folder."""
    _ELSEWHERE[name] = path


def elsewhere(name: str) -> Path | None:
    """Return where a package or module lies, if outside of this package's folder."""
    return _ELSEWHERE.get(name)


def digest(*modules: str, package: Path | None = None) -> str:
    """Return the sha256 (hex) of the closure of `modules` (dotted names below the package).

    Args:
        package: another package's folder, whose code is read and never imported.
    """
    package = package or PACKAGE
    total = hashlib.sha256()
    for name in closure(*modules, package=package):
        total.update(f"{name}\0{_tree(_file(name, package))}\n".encode())
    return total.hexdigest()


def modules(package: Path | None = None) -> list[str]:
    """Return the sorted names of all modules of the package."""
    package = package or PACKAGE
    paths = (path.relative_to(package) for path in package.rglob("*.py"))
    parts = ([ROOT, *path.parent.parts, path.stem] for path in paths)
    return sorted({".".join(part).removesuffix(".__init__") for part in parts})


def closure(*modules: str, package: Path | None = None) -> list[str]:
    """Return the sorted names of `modules` and of everything they import in this package."""
    package = package or PACKAGE
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in seen or name in ("", ROOT):
            continue
        waiting.append(name.rpartition(".")[0])
        folder = package.joinpath(*name.split(".")[1:])
        if _path(name, package) is None and (name in _ELSEWHERE or folder.is_dir()):
            continue  # a folder without a module of its own
        seen.add(name)
        waiting += _imports(name, package)
    return sorted(seen)


def _path(name: str, package: Path) -> Path | None:
    if name != ROOT and not name.startswith(ROOT + "."):
        return None
    stem = package.joinpath(*name.split(".")[1:])
    if package == PACKAGE:
        for known, where in _ELSEWHERE.items():
            if name == known or name.startswith(f"{known}."):
                inner = name.removeprefix(known).strip(".")
                stem = where.joinpath(*inner.split(".")) if inner else where
                if where.is_file():
                    return where
                if not inner and not (where / "__init__.py").is_file():
                    return None  # a folder alone
    for path in (stem / "__init__.py", stem.with_suffix(".py")):
        if path.is_file():
            return path
    return None


def _file(name: str, package: Path) -> Path:
    path = _path(name, package)
    if path is None:
        raise ModuleNotFoundError(f"no module {name} in {package}")
    return path


@functools.cache
def _imports(name: str, package: Path) -> list[str]:
    path, found = _file(name, package), []
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = _origin(node, name if path.stem == "__init__" else name.rpartition(".")[0])
            # `from lockstep.datasets import order` names a module; `… import Reader` does not.
            found += [origin] + [f"{origin}.{alias.name}" for alias in node.names]
    return [module for module in found if _path(module, package) is not None]


def _origin(node: ast.ImportFrom, package: str) -> str:
    """Return what an import is from; a relative one from the package of its module."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])


@functools.cache
def _tree(path: Path) -> str:
    return "".join(_canonical(ast.parse(path.read_bytes())))


def _canonical(node: ast.AST) -> Iterator[str]:
    """Yield a syntax tree as text that is the same for every Python version we run on.

    `ast.dump` is not: newer versions add fields and print empty ones differently.
    """
    yield f"({type(node).__name__}"
    for field, value in ast.iter_fields(node):
        if field == "body" and isinstance(value, list) and _starts_with_docstring(value):
            value = value[1:]
        listed = isinstance(value, list)
        for item in value if listed else [value]:
            if isinstance(item, ast.AST):
                yield f" {field}="
                yield from _canonical(item)
            elif item is not None or listed:  # `{**a}` has a key None, `f(*, a)` a default None
                yield f" {field}={item!r}"
    yield ")"


def _starts_with_docstring(body: list[ast.stmt]) -> bool:
    return (
        bool(body)
        and isinstance(body[0], ast.Expr)
        and isinstance(body[0].value, ast.Constant)
        and isinstance(body[0].value.value, str)
    )
