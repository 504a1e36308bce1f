"""The figures as a table: for a terminal, and as Markdown for docs/performance.md."""

from collections.abc import Mapping, Sequence

from benchmarks.row import SIGNS, Row

HEAD = ("", "median", "spread", "n", "asked", "met")


def cells(row: Row) -> tuple[str, ...]:
    """Return a row's cells as text."""
    unit = f" {row.unit}" if row.unit not in ("x", "") else ""
    spread = "" if row.samples == 1 else f"{number(row.low)}–{number(row.high)} {row.spread}"
    asked, met = "", ""
    if row.limit is not None:
        asked = f"{SIGNS[row.limit[0]]} {row.limit[1]:g}"
        met = "yes" if row.met else "NO"
    times = "×" if row.unit == "x" else ""
    return (row.what, f"{number(row.median)}{times}{unit}", spread, str(row.samples), asked, met)


def number(value: float) -> str:
    """Return a number with as many digits as mean something."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"


def plain(results: Mapping[str, Sequence[Row]]) -> str:
    """Return a table for a terminal."""
    body = [cells(row) for rows in results.values() for row in rows]
    widths = [max(len(line[k]) for line in [HEAD, *body]) for k in range(len(HEAD))]
    parts = ["  ".join(cell.ljust(width) for cell, width in zip(HEAD, widths)).rstrip()]
    for name, rows in results.items():
        parts.append(f"{name}:")
        for row in rows:
            line = "  ".join(cell.ljust(width) for cell, width in zip(cells(row), widths))
            parts.append(line.rstrip())
    return "\n".join(parts)


def markdown(results: Mapping[str, Sequence[Row]]) -> str:
    """Return one Markdown table a measurement."""
    parts = []
    for name, rows in results.items():
        parts += [f"### `{name}`", "", "| measured | median | spread | n | asked | met |"]
        parts.append("|---|---:|---|---:|---|---|")
        parts += [f"| {' | '.join(cells(row))} |" for row in rows]
        parts.append("")
    return "\n".join(parts)
