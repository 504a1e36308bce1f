"""Results as they come: a line of JSON each, and a table that is whole at any time."""

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.row import Row
from lockstep import files
from lockstep.errors import UserError

HEAD = (*table.HEAD, "device", "note")


class Results:
    """What was found so far, in `results.jsonl` and `table.md` of a folder.

    A line has `part`, `what`, `device`, `note` and `seconds` (since the command began); a figure
    has the fields of `benchmarks.row.Row` besides and whether its limit is `met`, and any line may
    have `facts`.
    """

    def __init__(self, folder: Path) -> None:
        """Begin.

        Raises:
            UserError: the folder holds results of another start.
            OSError: it cannot be made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.lines, self.table = folder / "results.jsonl", folder / "table.md"
        if self.lines.exists():
            raise UserError(f"{self.lines}: holds results already; choose another folder")
        self.begun = time.monotonic()
        self.parts: dict[str, list[tuple[str, ...]]] = {}

    def figure(
        self,
        part: str,
        row: Row,
        device: str,
        note: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a figure."""
        fields = {**asdict(row), "met": row.met}
        self._write(part, fields, device, note, facts, table.cells(row))

    def note(
        self,
        part: str,
        what: str,
        note: str,
        device: str = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a row without a figure: a fact, or why there is no figure."""
        self._write(part, {"what": what}, device, note, facts, (what, "", "", "", "", ""))

    def _write(
        self,
        part: str,
        fields: Mapping[str, Any],
        device: str,
        note: str,
        facts: Mapping[str, Any] | None,
        cells: tuple[str, ...],
    ) -> None:
        about = {"part": part, "device": device, "note": note}
        seconds = round(time.monotonic() - self.begun, 2)
        line = {**about, **fields, "seconds": seconds} | ({"facts": facts} if facts else {})
        with open(self.lines, "a") as stream:
            stream.write(json.dumps(_plain(line), ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        cells = (*cells, device, note.replace("|", "/").replace("\n", " "))
        self.parts.setdefault(part, []).append(cells)
        files.write_bytes(self.table, self._markdown().encode())
        print(f"[{seconds:6.1f} s] {part}: " + "  ".join(filter(None, cells)), flush=True)

    def _markdown(self) -> str:
        lines = []
        for part, rows in self.parts.items():
            lines += [
                f"### `{part}`",
                "",
                f"| {' | '.join(HEAD)} |",
                "|---|---:" + "|---" * 6 + "|",
            ]
            lines += [f"| {' | '.join(cells)} |" for cells in rows] + [""]
        return "\n".join(lines)


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it, which knows no infinity and nothing of NumPy's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(it) for key, it in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(it) for it in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    return value if isinstance(value, str | bool | int | None) else str(value)
