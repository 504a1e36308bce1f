"""What a table is: columns with units, rows of values, the same for the page and for CSV."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Absent:
    """Stands where there is no number, and says why."""

    reason: str

    def __str__(self) -> str:
        return f"absent: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        key: of its values in the rows, and its name in the CSV.
        label: its heading.
        unit: shown under the heading.
        digits: significant digits of its numbers on the page; None for text and whole numbers.
        scale: what its numbers are multiplied by to be in `unit` (the CSV is in SI units).
    """

    key: str
    label: str
    unit: str = ""
    digits: int | None = None
    decimals: int | None = None
    scale: float = 1.0

    @property
    def numeric(self) -> bool:
        """Whether it holds numbers, which are aligned to the right."""
        return self.digits is not None or self.decimals is not None or self.unit == "count"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the report.

    Attributes:
        name: of its CSV file.
        title: its caption.
        note: what to know when reading it.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    note: str = ""


def shown(value: Any, column: Column) -> str:
    """Return a value as the page shows it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, Absent):
        return str(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        if math.isinf(value):
            return "infinite"
        if column.decimals is not None:
            return grouped(f"{value * column.scale:.{column.decimals}f}")
        if column.digits is not None:
            return number(value * column.scale, column.digits)
        return grouped(str(value))
    return str(value)


def aligned(column: Column, values: Sequence[Any]) -> Column:
    """Return a column with one number of decimals for all its values, so that points align.

    The smallest value keeps `digits` digits, less one; a column whose values span more than four
    powers of ten stays as it is.
    """
    sizes = [
        abs(v * column.scale)
        for v in values
        if isinstance(v, (int, float)) and math.isfinite(v) and v != 0
    ]
    if column.digits is None or not sizes or max(sizes) > 1e4 * min(sizes) or min(sizes) < 1e-3:
        return column
    decimals = max(0, column.digits - 2 - math.floor(math.log10(min(sizes))))
    return replace(column, decimals=decimals)


def number(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits, without an exponent where readable."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e9:
        return f"{value:.{digits - 1}e}"
    exponent = math.floor(math.log10(abs(value)))
    return grouped(f"{round(value, digits - 1 - exponent):.{max(0, digits - 1 - exponent)}f}")


def grouped(text: str) -> str:
    """Put thin spaces between groups of three digits before the point."""
    sign, text = ("−", text[1:]) if text.startswith("-") else ("", text)
    whole, point, rest = text.partition(".")
    if whole.isdigit() and len(whole) > 4:
        whole = f"{int(whole):,}".replace(",", "\u202f")
    return sign + whole + point + rest


def as_csv(table: Table) -> bytes:
    """Return a table as CSV: numbers in SI units and full precision, absences in words."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.key for column in table.columns])
    for row in table.rows:
        writer.writerow([_cell(row.get(column.key)) for column in table.columns])
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return repr(float(value))
    return value
