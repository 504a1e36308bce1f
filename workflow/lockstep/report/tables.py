"""Tables: a data frame, a specification of its columns, and the one renderer of page and CSV."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

UNITS = {"ms": 1e3, "mJ": 1e3, "kB": 1e-3, "MB": 1e-6, "GFLOP/s": 1e-9, "%": 100.0}
"""What a number in SI units is multiplied by to be in a unit; by 1 in those that are not here."""

MOST_ROWS = 300  # that the page shows; the CSV has all
LONG = 36  # characters from which a text may be broken into lines

WHO = "scale | Scale\nvariant | Variant\n"
RUNS = "n | Runs | | d\n"
"""The first columns of tables that have a row for each variant and scale."""


@dataclass(frozen=True)
class Absent:
    """Stands where there is no number, and says why."""

    reason: str

    def __str__(self) -> str:
        return f"absent: {self.reason}"


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    key: str  # of its values, and its name in the CSV
    label: str  # its heading
    unit: str = ""  # shown under the heading
    format: str = ""  # `4g`: significant digits, `2f`: decimals, `d`: whole numbers; else text


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the report."""

    title: str  # its caption
    columns: Sequence[Column]
    frame: pd.DataFrame  # with Python's own values; what is missing is None or NaN
    note: str = ""  # what to know when reading it
    name: str = ""  # of its CSV file, once it is part of a report

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows, each as a dictionary of the table's columns."""
        keys = [column.key for column in self.columns]
        counts = [column.key for column in self.columns if column.format == "d"]
        rows = self.frame.reindex(columns=keys).astype(object).to_dict("records")
        for row in rows:  # of a column of whole numbers with gaps pandas makes floats
            row |= {k: int(row[k]) for k in counts if isinstance(row[k], float) and row[k] % 1 == 0}
        return rows


def table(
    title: str,
    specification: str,
    rows: pd.DataFrame | Sequence[Mapping[str, Any]],
    note: str = "",
) -> Table:
    """Return a table of rows; what is not in a row is missing.

    Args:
        specification: one ``key | label | unit | format`` per line (`Column`).
    """
    lines = [line for line in specification.splitlines() if line.strip()]
    known = [Column(*(field.strip() for field in line.split("|"))) for line in lines]
    frame = pd.DataFrame(rows, columns=[c.key for c in known], dtype=object)
    return Table(title=title, columns=known, frame=frame, note=note)


def with_reasons(frame: pd.DataFrame, column: str, reasons: "pd.Series[Any] | str") -> pd.DataFrame:
    """Return a frame whose missing numbers of a column are absent for a reason, by row or for all.

    Where there is no reason either, they stay missing.
    """
    given = [reasons] * len(frame) if isinstance(reasons, str) else list(reasons)
    values = [
        Absent(why) if _missing(value) and isinstance(why, str) else value
        for value, why in zip(frame[column], given, strict=True)
    ]
    return frame.assign(**{column: pd.Series(values, frame.index, dtype=object)})


# The renderer ---------------------------------------------------------------------------------


def rendered(source: Table) -> dict[str, Any]:
    """Return a table as the template wants it: texts and classes.

    Columns in which all values are absent become one sentence below the table; those in which
    nothing is are left out.
    """
    rows = source.rows
    if len(rows) > MOST_ROWS:  # lost runs first
        rows = sorted(rows, key=lambda row: row.get("status", "finished") == "finished")[:MOST_ROWS]
    shown, labels = [], dict[str, list[str]]()
    for column in source.columns:
        values = [row[column.key] for row in rows]
        reasons = {v.reason if isinstance(v, Absent) else None for v in values}
        if len(reasons) == 1 and (reason := reasons.pop()) is not None:
            labels.setdefault(reason, []).append(column.label)
        elif not all(map(_missing, values)):
            shown.append(_aligned(column, values))
    absent = "; ".join(f"{', '.join(names)} ({why})" for why, names in labels.items())
    return {
        "name": source.name,
        "title": source.title,
        "note": source.note,
        "absent": f"Absent: {absent}." if absent else "",
        "hidden": len(source.frame) - len(rows),
        "head": [{"label": c.label, "unit": c.unit, "numeric": bool(c.format)} for c in shown],
        "rows": [[_cell(row[c.key], c) for c in shown] for row in rows],
    }


def _cell(value: Any, column: Column) -> dict[str, str]:
    """Return a value's text and class: `n` of a number, `long` of a text that may break."""
    if isinstance(value, Absent):
        return {"text": str(value), "class": "absent"}
    text = "–" if _missing(value) else str(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not _missing(value):
        text = _shown(value * UNITS.get(column.unit, 1), column.format)
    numeric = column.format and not isinstance(value, str)
    return {"text": text, "class": "n" if numeric else "long" if len(text) > LONG else ""}


def _shown(value: float, form: str) -> str:
    if math.isinf(value):
        return "infinite"
    if form.endswith("f"):
        return grouped(f"{value:.{form}}")
    if form.endswith("g"):
        return number(value, int(form[:-1]))
    return grouped(f"{value:g}" if isinstance(value, float) else str(value))


def _missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))


def _aligned(column: Column, values: Sequence[Any]) -> Column:
    """Return a column with one number of decimals for all its values, so that points align.

    The smallest value keeps its digits, less one; a column whose values span more than four
    powers of ten stays as it is.
    """
    numbers = [abs(v) for v in values if isinstance(v, (int, float)) and math.isfinite(v)]
    sizes = [size * UNITS.get(column.unit, 1) for size in numbers if size]
    if not column.format.endswith("g") or not sizes:
        return column
    if max(sizes) > 1e4 * min(sizes) or min(sizes) < 1e-3:
        return column
    decimals = int(column.format[:-1]) - 2 - math.floor(math.log10(min(sizes)))
    return replace(column, format=f"{max(0, decimals)}f")


def number(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits, without an exponent where readable."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e9:
        return f"{value:.{digits - 1}e}"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return grouped(f"{round(value, decimals):.{max(0, decimals)}f}")


def grouped(text: str) -> str:
    """Put thin spaces between groups of three digits before the point."""
    sign, text = ("−", text[1:]) if text.startswith("-") else ("", text)
    whole, point, rest = text.partition(".")
    if whole.isdigit() and len(whole) > 4:
        whole = f"{int(whole):,}".replace(",", "\u202f")
    return sign + whole + point + rest


def as_csv(source: Table) -> bytes:
    """Return a table as CSV: numbers in SI units and full precision, absences in words."""
    keys = [column.key for column in source.columns]
    text = pd.DataFrame(source.rows, columns=keys, dtype=object).to_csv(index=False)
    return str(text).encode()
