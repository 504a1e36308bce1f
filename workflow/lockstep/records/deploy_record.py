"""Reads what comes after training of a workload: `lockstep.deploy` wrote it, in one file."""

from collections.abc import Mapping
from typing import Any

from lockstep.records.record_schema import DEPLOY
from lockstep.records.record_validation import Unsound, read_json
from lockstep.study import Study


def read(study: Study, workload: str) -> dict[str, Any] | None:
    """Return the record of a workload's deployment, None if there is none.

    Raises:
        Unsound: it is not whole, or not of this workload.
    """
    record: dict[str, Any] | None = read_json(study.deployment(workload), DEPLOY)
    if record and record["workload"] != workload:
        raise Unsound(f"foreign: it is the record of workload {record['workload']!r}")
    return record


def counted(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return those repetitions of a route that count: they ended, and nobody disturbed them."""
    return [r for r in row["repetitions"] if not r["reason"] and not r.get("disturbed")]
