"""The one exception that a person is meant to read."""

import contextlib
import difflib
import math
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path


class UserError(Exception):
    """A mistake a person can mend: says what is wrong, where, and what would be right.

    The command line prints the message without a traceback and exits with status 2.
    """


@contextlib.contextmanager
def importing(file: Path, where: str) -> Iterator[None]:
    """Import a file of a person's own: whatever it raises is said in one line.

    A package that it needs is another matter, which the command line says.

    Raises:
        UserError: it cannot be imported.
    """
    try:
        yield
    except (UserError, ModuleNotFoundError):
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(file)]
        at = f", line {lines[-1]}" if lines else ""  # a SyntaxError says its own
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(f"{where}: {file}{at}: {said}") from error


def number_hint(value: object) -> str:
    """Return what to write instead of a number that YAML 1.1 reads as text; empty for all else.

    It knows 1.0e-3 and 1.0e+12, but neither 1e-3 nor 1.0e12.
    """
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return ""
    if not math.isfinite(number):
        return ""
    text = repr(number)
    mantissa, e, exponent = text.partition("e")
    text = f"{mantissa}.0e{exponent}" if e and "." not in mantissa else text
    return f"; for a number write {text}"


def shown(value: object) -> str:
    """Return a value as a config file has it."""
    if value is None:
        return "empty"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the known word closest to `word`, or lists all of them."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known are: " + ", ".join(known) if known else "none are known here"
