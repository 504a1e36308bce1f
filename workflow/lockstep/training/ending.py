"""How a rank ends: by what status, and at once, as the others would wait for it."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from lockstep import files
from lockstep.cluster import failures
from lockstep.errors import UserError
from lockstep.interruption import OUT_OF_MEMORY


def _refuse(why: object) -> NoReturn:
    """Leave with one line; what a full disk did not take is not tried again, with a traceback."""
    print(f"lockstep: error: {why}", file=sys.stderr)
    _leave(2, str(why))


def _leave(status: int, said: str) -> NoReturn:
    """End at once: at Python's own exit, JAX waits minutes for ranks that wait for this one."""
    failures.note(os.environ, status, said)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


LONGEST = 200  # characters of an error that are kept as a reason
MEMORY = ("OutOfMemoryError", "MemoryError")
MEMORY_SAID = ("RESOURCE_EXHAUSTED", "out of memory", "can't allocate memory")


def status_of(error: BaseException) -> int:
    """Return the exit status for an error, those of frameworks by name: none is imported here."""
    names = {kind.__name__ for kind in type(error).__mro__}
    said = any(text in str(error) for text in MEMORY_SAID) and isinstance(error, RuntimeError)
    return OUT_OF_MEMORY if said or names & set(MEMORY) else 1


def run(main: Callable[[Path], int], path: Path) -> NoReturn:
    """Run a rank's `main` on a file and end the process, which other ranks may wait for."""
    try:
        sys.exit(main(path))
    except UserError as error:
        _refuse(error)
    except OSError as error:
        why = files.explained(error, path.parent)
        if why:
            _refuse(why)
        traceback.print_exc()
        _leave(1, _line(error))
    except Exception as error:
        traceback.print_exc()
        _leave(status_of(error), _line(error))


def _line(error: BaseException) -> str:
    """Return an error in one line, of which frameworks write many."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:LONGEST]}" if text else type(error).__name__
