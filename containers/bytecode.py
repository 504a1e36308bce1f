"""Compiles folders to byte code, the same bytes each time: `bytecode.py FOLDER...`.

Byte code depends on what the compiling process holds in memory, so the files are dealt to a fixed
number of processes in a fixed order. It is marked as valid without a look at its source. What is
compiled already, in the image that this one starts from, is left as it is.
"""

import importlib.util
import os
import py_compile
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

PARTS = 8


def compile_part(files: list[str]) -> None:
    """Compile files in order; those that are no valid Python (templates, tests) are left alone."""
    for name in files:
        try:
            py_compile.compile(
                name, doraise=True, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
            )
        except (py_compile.PyCompileError, SyntaxError, ValueError, UnicodeDecodeError):
            continue


def compiled(name: str) -> bool:
    """Whether a file's byte code is there."""
    return Path(importlib.util.cache_from_source(name)).exists()


def main(folders: list[str]) -> None:
    """Compile all Python files below `folders`."""
    found = {str(path) for folder in folders for path in Path(folder).rglob("*.py")}
    files = sorted(name for name in found if not compiled(name))
    parts = [files[k::PARTS] for k in range(PARTS)]
    with ProcessPoolExecutor(os.cpu_count(), max_tasks_per_child=1) as pool:
        list(pool.map(compile_part, parts))


if __name__ == "__main__":
    main(sys.argv[1:])
