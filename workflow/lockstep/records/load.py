"""Reads a study's records. Nothing that is wrong with one of them keeps the others from being read.

Every run that the config asks for becomes a `Record`, whether it left records or not. A record
that is empty, truncated, foreign, contradictory or of an unknown schema is *excluded*: it stays
in the list of runs with the reason and takes no part in any number.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.records import (
    deploy_record,
    parity_verdict,
    record_schema,
    record_tables,
    record_validation,
)
from lockstep.records.record_tables import Columns, Unsound, read_columns
from lockstep.records.record_validation import FAILED, FINISHED, read_json
from lockstep.study import Study
from lockstep.study.run import Run

INTERRUPTED, MISSING, EXCLUDED = "interrupted", "missing", "excluded"
STOPPED = {
    "interrupted": "interrupted at a checkpoint; start again to go on",
    "signal 15": "stopped (signal 15) before it reached a checkpoint; start again",
}

FIRST_LOSSES = 20  # of a run that are compared with its partner's
EXAMPLES = "examples"
SMALL = ("summary.json", "epochs.csv", "windows.csv")
"""Records that are read whole, of every run."""

Key = tuple[str, str, str, int]
"""Workload, variant, scale and seed."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run of the study, as its records describe it."""

    workload: str
    variant: str
    scale: str
    seed: int
    folder: Path  # below the study's folder
    status: str  # finished, failed, interrupted, missing or excluded
    reason: str | None = None  # why it is not finished, in words
    summary: Mapping[str, Any] = field(default_factory=dict)  # of a finished or failed run
    epochs: Columns = field(default_factory=dict)  # of epochs.csv, float64 (epochs,)
    windows: Mapping[str, Any] = field(default_factory=dict)  # of `record_tables.digest`
    first_losses: np.ndarray | None = None  # None if they are not known
    steps_problem: str | None = None  # why steps.npz of a finished run cannot be used

    @property
    def key(self) -> Key:
        """What identifies the run within its study."""
        return self.workload, self.variant, self.scale, self.seed

    @property
    def metric(self) -> str:
        """The name of the metric that its target is of."""
        return f"test_{self.summary['target']['metric']}"

    @property
    def metric_is_share(self) -> bool:
        """Whether that metric lies in [0, 1], as the workload says; older records do not."""
        units = (self.summary.get("units") or {}).get(self.metric) or {}
        return bool(units.get("unit", "share") == "share")

    @property
    def unit(self) -> str:
        """What its throughput counts: examples, or what its loss is a mean over."""
        unit = (self.summary.get("units") or {}).get("weight")
        return f"{unit}s" if unit else EXAMPLES

    @property
    def step_time(self) -> float | None:
        """Median seconds of a step in the steady state, None if it has none."""
        steady = self.windows.get("steady")
        return steady["step_seconds"]["median"] if steady else None

    @property
    def seconds_to_target(self) -> float | None:
        """Training time until it met its target, None if it never did."""
        seconds: float | None = self.summary["target"].get("training_seconds")
        return seconds

    @property
    def whole_seconds(self) -> float:
        """From the start of its process to its end."""
        return sum(s for phase, s in self.summary["seconds"].items() if phase != "data_wait")

    @property
    def begun_elsewhere(self) -> str | None:
        """Why its times and its learning are not its own, None if they are.

        It may have been begun from a checkpoint of another run, even of the other framework.
        """
        origin = self.summary.get("resumed_from")
        return origin and (
            f"begun at step {origin['step']} from a checkpoint of another run "
            f"({origin['identity'][:12]}): what came before is not its own"
        )

    @property
    def counts(self) -> bool:
        """Whether it finished, and its times and its learning are its own."""
        return self.status == FINISHED and not self.begun_elsewhere

    @property
    def disturbed(self) -> str | None:
        """Why its times must not be compared with another run's, None if they may."""
        if self.windows.get("enough", True):
            return None
        count = "only {undisturbed}" if self.windows["undisturbed"] else "none"
        return (
            f"other programs used its CPU cores: {count} of its {{timed}} timed windows were "
            "undisturbed"
        ).format_map(self.windows)

    @property
    def _contention(self) -> Mapping[str, Any]:
        seen = self.summary.get("contention")
        older = {"reason": "the records are older than this measurement"}
        return seen if isinstance(seen, Mapping) else older

    @property
    def gave_up(self) -> bool:
        """Whether it ended early because other programs left it nothing to measure."""
        return self._contention.get("gave_up") is True

    @property
    def unwatched(self) -> str | None:
        """Why nobody can say whether it had to share its cores, None if that was watched."""
        seen = self._contention
        return None if seen.get("watched") is True else str(seen.get("reason") or "no reason given")


@dataclass(frozen=True, kw_only=True)
class Records:
    """Everything that a study has recorded."""

    study: Study
    runs: Sequence[Record]  # one for each run of the config, in its order
    parity: Mapping[str, Mapping[str, Any]]  # verdicts by workload
    excluded: Sequence[tuple[str, str]]  # what was found and not used, with the reason
    # what comes after training, by workload
    deployed: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def by_side(self) -> Mapping[tuple[str, str, str], Mapping[int, Record]]:
        """Runs by workload, variant and scale, and each of these by seed."""
        found: dict[tuple[str, str, str], dict[int, Record]] = {}
        for run in self.runs:
            found.setdefault((run.workload, run.variant, run.scale), {})[run.seed] = run
        return found

    @property
    def unfinished(self) -> list[Record]:
        """Runs that did not end or cannot be used; a failed run has ended."""
        return [run for run in self.runs if run.status not in (FINISHED, FAILED)]


def load(study: Study) -> Records:
    """Read everything below the study's folder that the report needs."""
    excluded: list[tuple[str, str]] = []
    runs: dict[str, Record] = {}

    def used(read: Callable[..., Any], path: Path, *arguments: Any, follows: str = "") -> Any:
        """Return what a file holds; None if there is none, or if it is unsound and excluded."""
        try:
            return read(*arguments)
        except Unsound as problem:
            excluded.append((_below(study, path), f"{problem}{follows}"))
            return None

    unbound = ": its runs are not bound by their hashes"
    for name, block in study.blocks.items():
        path = study.manifest(name)
        manifest = used(read_json, path, path, record_schema.BLOCK, follows=unbound)
        for run in block.runs:
            entry = manifest["runs"].get(run.name) if manifest else None
            record = runs[run.name] = _record(study, run, entry)
            if entry and record.summary and record.summary["identity"] != entry["identity"]:
                why = f"its entry of {run.name} has another identity: the run is not bound by it"
                excluded.append((_below(study, path), why))
    for record in runs.values():
        if record.status == EXCLUDED:
            excluded.append((str(record.folder), record.reason or ""))
        if record.steps_problem:
            excluded.append((f"{record.folder}/steps.npz", record.steps_problem))
    expected = {study.run_folder(run) for run in study.runs}
    for path in sorted((study.root / "runs").glob("*/*/*/seed-*")):
        if path not in expected:
            excluded.append((_below(study, path), "the study's config does not ask for this run"))
    parity = {
        name: found
        for name in study.config["workloads"]
        if (found := used(parity_verdict.read, study.verdict(name), study, name))
    }
    again = "; run the deploy stage again"
    deployed = {
        name: found
        for name in study.deployed
        if (found := used(deploy_record.read, study.deployment(name), study, name, follows=again))
    }
    ordered = [runs[run.name] for run in study.runs]
    return Records(study=study, runs=ordered, parity=parity, excluded=excluded, deployed=deployed)


def _record(study: Study, run: Run, entry: Mapping[str, Any] | None) -> Record:
    """Read one run; `entry` is its line in its block's manifest, if there is one."""
    folder = study.run_folder(run)
    known: dict[str, Any] = {name: getattr(run, name) for name in ("workload", "variant", "seed")}
    known |= {"scale": str(run.scale), "folder": Path(_below(study, folder))}
    try:
        if not (folder / "summary.json").is_file():
            status, reason = _why_none(folder)
            return Record(**known, status=status, reason=reason)
        contents = {name: (folder / name).read_bytes() for name in SMALL}
        summary = record_validation.read_summary(study, run, contents["summary.json"])
        bound = entry is not None and entry["identity"] == summary["identity"]
        hashes = entry["sha256"] if entry and bound else {}
        for name, content in contents.items():
            _unchanged(name, content, hashes)
        epochs, rows = (read_columns(contents[name], name) for name in SMALL[1:])
        digest = record_tables.digest(rows, summary)
        failure = record_validation.check(summary, epochs, rows, digest)
    except Exception as error:  # whatever one record holds, the others are reported
        reason = f"its records cannot be read ({error!r})"
        if isinstance(error, OSError):
            name = Path(error.filename or "a record").name
            reason = f"{name} cannot be read ({error.strerror})"
        if isinstance(error, Unsound):
            reason = str(error)
        return Record(**known, status=EXCLUDED, reason=reason)
    if digest and "absent" in summary["steady"]:
        digest["steady"] = None
    known |= {"summary": summary, "epochs": epochs, "windows": digest}
    if failure:
        return Record(**known, status=FAILED, reason=failure)
    known["status"] = FINISHED
    try:
        losses = step_losses(folder, summary, hashes)
    except Unsound as problem:
        return Record(**known, steps_problem=str(problem))
    return Record(**known, first_losses=losses[:FIRST_LOSSES].copy())


def step_losses(
    folder: Path, summary: Mapping[str, Any], hashes: Mapping[str, str] | None = None
) -> np.ndarray:
    """Return the loss of every step of a run, ``(steps,)``.

    Raises:
        Unsound: ``steps.npz`` is not readable, or contradicts the summary or its hash.
    """
    try:
        content = (folder / "steps.npz").read_bytes()
    except OSError as error:
        raise Unsound(f"steps.npz is not readable ({error.strerror})") from error
    _unchanged("steps.npz", content, hashes or {})
    return record_tables.read_steps(content, summary)["loss"]


def _unchanged(name: str, content: bytes, hashes: Mapping[str, str]) -> None:
    if name in hashes and hashlib.sha256(content).hexdigest() != hashes[name]:
        raise Unsound(f"{name} was changed after its block was finished (sha256 differs)")


def _why_none(folder: Path) -> tuple[str, str]:
    """Return status and reason of a run without a summary."""
    failure = folder / "failure.json"
    if not failure.is_file():
        started = (folder / "run.json").is_file()
        return MISSING, "started, but left no record" if started else "never started"
    try:
        reason = str(read_json(failure)["reason"])
    except (Unsound, KeyError, TypeError):
        return INTERRUPTED, "stopped, and its failure.json is not readable"
    if reason in STOPPED:
        return INTERRUPTED, STOPPED[reason]
    if reason == "signal 9":
        reason = "killed (signal 9), as happens when memory runs out"
    return FAILED, f"{reason}; see its log"


def _below(study: Study, path: Path) -> str:
    return path.relative_to(study.root).as_posix()
