"""Whether a run's records can be used: complete, of this run, and free of contradiction.

The one validator of records: the report leaves out what it refuses, the archive reports it.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lockstep import files, places
from lockstep.records import record_schema
from lockstep.records.record_tables import Columns, Unsound
from lockstep.study import Study
from lockstep.study.run import Run

SCHEMA = "lockstep-record/1"
FINISHED, FAILED = "finished", "failed"


def parsed(content: bytes) -> Any:
    """Return the value that a record's JSON stands for.

    Raises:
        Unsound: it is not JSON.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Unsound(f"not whole ({error})") from error


def read_json(path: Path, schema: str | None = None) -> Any:
    """Return the value in a record's JSON file; None if there is no such file.

    Args:
        schema: that it must have, a constant of `record_schema`.

    Raises:
        Unsound: it cannot be read, is not JSON, is null, or has not the schema.
    """
    if not path.is_file():
        return None
    try:
        value = parsed(path.read_bytes())
    except OSError as error:
        raise Unsound(f"not readable ({error.strerror})") from error
    if schema and (field := record_schema.unsound(value, schema)) is not None:
        raise Unsound(f"no sound field {field!r}")
    if value is None:  # which would say that there is no such file
        raise Unsound("not a record (it is null)")
    return value


# A summary, and the tables beside it ----------------------------------------------------------


def _contradictory(why: str) -> Unsound:
    return Unsound(f"summary.json is contradictory: {why}")


def read_summary(study: Study, run: Run, content: bytes) -> dict[str, Any]:
    """Return a run's summary.

    Raises:
        Unsound: it is not the record of this run, made as the study now says.
    """
    if not content.strip():
        raise Unsound("summary.json is empty")
    try:
        summary = parsed(content)
    except Unsound as problem:
        raise Unsound(f"summary.json is {problem}") from problem
    if not isinstance(summary, dict) or "schema" not in summary:
        raise Unsound("summary.json is not a record of a run: it names no schema")
    if (found := summary["schema"]) != SCHEMA:
        raise Unsound(f"summary.json has schema {found!r}; this version reads {SCHEMA}")
    if field := record_schema.unsound(summary, record_schema.SUMMARY):
        raise Unsound(f"summary.json has no sound field {field!r}")
    expected = (study.name, run.workload, run.variant, str(run.scale), run.seed)
    found = tuple(summary[k] for k in ("study", "workload", "variant", "scale", "seed"))
    if found != expected:
        raise Unsound(f"summary.json is foreign: it is the record of {'/'.join(map(str, found))}")
    recipe = study.workload(run.workload)
    for what, name, now in (
        ("another recipe than the study", "recipe", places.without(recipe)),
        ("other settings than the variant", "variant", study.variant(run.variant)),
    ):
        if summary["contract"][name] != now:
            raise Unsound(f"summary.json was made with {what} now has; train again")
    target, recorded = recipe["target"], summary["target"]
    if {name: recorded.get(name) for name in target} != target:
        raise _contradictory(
            f"its target is a {recorded['metric']} of {recorded['value']:g}, its recipe's "
            f"a {target['metric']} of {target['value']:g}"
        )
    return summary


def check(
    summary: Mapping[str, Any], epochs: Columns, rows: Columns, digest: Mapping[str, Any]
) -> str | None:
    """Return why a run failed, None if it finished.

    Args:
        rows: the columns of ``windows.csv``.
        digest: what `record_tables.digest` makes of them.

    Raises:
        Unsound: its records contradict each other.
    """
    finished = summary["status"] == FINISHED
    if summary["status"] not in (FINISHED, FAILED):
        raise _contradictory(f"its status is {summary['status']!r}")
    for phase, seconds in summary["seconds"].items():
        if not isinstance(seconds, (int, float)) or not 0 <= seconds < math.inf:
            raise _contradictory(f"{phase} took {seconds} seconds")
    # A run that was begun from another run's checkpoint has no windows of what went before.
    begun = (summary.get("resumed_from") or {}).get("step", 0)
    made = int(rows["steps"].sum()) if rows else 0
    if begun + made != summary["steps"]:
        raise _contradictory(f"{summary['steps']} steps, but windows.csv has {made}")
    for what, recorded, computed in _derived(summary, epochs, rows, digest):
        # Sums of many differences of a clock round; a wait may be 0.
        if not math.isclose(recorded, computed, rel_tol=1e-6, abs_tol=1e-9):
            found = f"{what} is {recorded:.6g}, its tables give {computed:.6g}"
            raise _contradictory(found)
    if finished and summary["steps"] != summary["total_steps"]:
        raise _contradictory(f"finished after {summary['steps']} of {summary['total_steps']} steps")
    if finished and (not epochs or not len(epochs["epoch"])):
        raise _contradictory("finished, but epochs.csv has no row")
    _reached(summary["target"], epochs, bool(summary.get("resumed_from")))
    if not finished:
        return str(summary.get("reason") or "failed, and does not say why")
    times = epochs["training_seconds"]
    if not begun and not ((times >= 0) & np.isfinite(times)).all():
        raise _contradictory("an epoch ended at no time")
    for name, value in summary["metrics"].items():
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            return f"{name} is {value} at the end"
        if name not in epochs or not math.isclose(epochs[name][-1], value, rel_tol=1e-9):
            raise _contradictory(f"{name} is not what the last row of epochs.csv says")
    goal = f"test_{summary['target']['metric']}"
    if goal not in summary["metrics"]:
        raise _contradictory(f"finished, but has no {goal}, which is its target")
    return None


def _derived(
    summary: Mapping[str, Any], epochs: Columns, rows: Columns, digest: Mapping[str, Any]
) -> Iterator[tuple[str, float, float]]:
    """Yield what follows from the tables: its name, as it is recorded, and as they give it."""
    recorded, computed = summary["steady"], {**(digest.get("steady") or {})}
    if recorded.get("step_seconds"):
        if not computed:
            raise _contradictory("it has a step time, but windows.csv has no steady window")
        for name, value in computed.pop("step_seconds").items():
            yield f"a step's {name}", recorded["step_seconds"][name], value
        for name, value in computed.items():
            if recorded.get(name) is not None:
                yield f"steady {name}", recorded[name], value
    seconds, failed = summary["seconds"], summary["status"] == FAILED
    for phase, column in (("training", "seconds"), ("data_wait", "data_seconds")):
        spent, added = seconds.get(phase, 0.0), float(rows[column].sum()) if rows else 0.0
        # The window in which a run failed is in no table.
        yield phase, spent, max(spent, added) if failed else added
    flops = summary.get("flops") or {}
    rate, total, spent = flops.get("per_second"), flops.get("total"), seconds.get("training")
    if isinstance(rate, (int, float)) and isinstance(total, (int, float)) and spent:
        yield "FLOP/s", rate, total / spent
    # What was before another run's checkpoint is in another run's windows.
    if epochs and rows and not summary.get("resumed_from"):
        ends, elapsed = rows["step"] + rows["steps"], np.r_[0.0, rows["seconds"].cumsum()]
        made = elapsed[np.searchsorted(ends, epochs["step"], side="right")]
        for value, clock in zip(epochs["training_seconds"], made, strict=True):
            yield "an epoch's training_seconds", value, clock


def _reached(target: Mapping[str, Any], epochs: Columns, begun: bool) -> None:
    """Check when the target was met against the epochs' evaluations."""
    values = epochs.get(f"test_{target['metric']}", np.empty(0))
    ahead = values - target["value"]  # what is not a number is not
    met = np.flatnonzero(ahead >= 0 if target.get("higher", True) else ahead <= 0)
    step = int(epochs["step"][met[0]]) if len(met) else None
    seconds = float(epochs["training_seconds"][met[0]]) if len(met) and not begun else None
    recorded = target.get("training_seconds")
    same = recorded is seconds
    if recorded is not None and seconds is not None:
        same = math.isclose(recorded, seconds, rel_tol=1e-9)
    if target.get("step") != step or not same:
        raise _contradictory(
            f"it met its target at step {target.get('step')} after {recorded} s, epochs.csv "
            f"gives step {step} after {seconds} s"
        )


# What an archive checks as well ---------------------------------------------------------------

REPEATED_BY = (
    *(("host", "cpu"), ("host", "instruction_set"), ("topology", "threads")),
    ("weights", "final"),
)
"""What of a record decides whether a repetition must have the same bits."""

TRAJECTORY = ("recipe", "precision", "input", "dataset", "weights", "seed")
"""What of `determined_by` decides what is trained; records of before have no `input`."""


def identity_problems(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield where a summary is not of the run that it says it is.

    Args:
        settings: the run's part of the study's config.
    """
    contract = summary["contract"]
    determined = contract["determined_by"]
    trained = {name: determined[name] for name in TRAJECTORY if name in determined}
    if files.digest(determined) != summary["identity"]:
        yield "summary.json: identity is not the hash of contract.determined_by"
    if files.digest(trained) != summary["trajectory"]:
        yield "summary.json: trajectory is not the hash of what was trained"
    if determined["settings"] != settings:
        yield "summary.json: contract.determined_by.settings are not those of the study's config"
    if determined["dataset"] != summary["dataset"]["content"]:
        yield "summary.json: contract.determined_by.dataset is not dataset.content"
    for part, name in REPEATED_BY:
        if contract.get(part, summary.get(part)).get(name) is None:
            yield f"summary.json: has no {part}.{name}, which a repetition is compared by"
