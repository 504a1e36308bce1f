"""Where two JSON values or tables differ by more than rounding."""

import csv
import io
import json
import math
from collections.abc import Iterator
from typing import Any

RELATIVE = 1e-9
"""Between numbers: other builds of NumPy and SciPy round differently. Everything that
is not a number must be equal.
"""
ABSOLUTE = 1e-15
"""Between numbers of the report, some of which are differences of nearly equal ones."""


def between(computed: Any, said: Any, where: str = "", *, absolute: float = 0.0) -> Iterator[str]:
    """Yield where two JSON values differ by more than rounding."""
    if isinstance(computed, dict) and isinstance(said, dict):
        for key in sorted({*computed, *said}):
            if key not in said or key not in computed:
                which = "is not there" if key not in said else "follows from no record"
                yield f"{where}{key} {which}"
            else:
                inner = f"{where}{key}."
                yield from between(computed[key], said[key], inner, absolute=absolute)
    elif isinstance(computed, list) and isinstance(said, list):
        if len(computed) != len(said):
            yield f"{where.rstrip('.')} has {len(said)} entries instead of {len(computed)}"
            return
        for k, (a, b) in enumerate(zip(computed, said)):
            yield from between(a, b, f"{where}{k}.", absolute=absolute)
    elif not _same(computed, said, absolute):
        yield f"{where.rstrip('.')} says {_short(said)}, the records give {_short(computed)}"


def _same(a: Any, b: Any, absolute: float) -> bool:
    """Whether two values are equal, numbers up to rounding."""
    numbers = (int, float)
    if isinstance(a, bool) or isinstance(b, bool) or not isinstance(a, numbers):
        return type(a) is type(b) and a == b
    if not isinstance(b, numbers):
        return False
    return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=absolute) or (a != a and b != b)


def tables(computed: bytes, said: bytes) -> Iterator[str]:
    """Yield where two CSV files differ by more than rounding."""
    try:
        rows = [list(csv.reader(io.StringIO(text.decode()))) for text in (computed, said)]
    except (UnicodeDecodeError, csv.Error) as error:
        yield f"not readable ({error})"
        return
    mine, theirs = ([[_value(cell) for cell in row] for row in table] for table in rows)
    yield from between(mine, theirs, absolute=ABSOLUTE)


def _value(cell: str) -> str | float:
    try:
        return float(cell)
    except ValueError:
        return cell


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, float) else repr(value)
    return text if len(text) < 80 else text[:77] + "..."
