"""Reads a study's records. Nothing that is wrong with one of them keeps the others from being read.

Every run that the config asks for becomes a `Record`, whether it left records or not. A record
that is empty, truncated, foreign, contradictory or of an unknown schema is *set apart*: it stays
in the list of runs with the reason and takes no part in any number.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.report.soundness import (
    FAILED,
    FINISHED,
    Columns,
    Unsound,
    check,
    read_columns,
    read_summary,
)
from lockstep.study import Study
from lockstep.study.run import Run

PARITY_SCHEMAS = ("lockstep-parity/1",)
INTERRUPTED = "interrupted"
MISSING = "missing"
APART = "set apart"

Key = tuple[str, str, str, int]
"""Workload, variant, scale and seed."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run of the study, as its records tell it.

    Attributes:
        folder: below the study's folder.
        status: `finished`, `failed`, `interrupted`, `missing` or `set apart`.
        reason: why it is not finished, in a person's words.
        summary: of a finished or failed run; empty for the others.
        epochs: columns of ``epochs.csv``, float64 ``(epochs,)``.
        windows: what is kept of ``windows.csv`` (see `window_digest`).
    """

    workload: str
    variant: str
    scale: str
    seed: int
    folder: Path
    status: str
    reason: str | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    epochs: Columns = field(default_factory=dict)
    windows: Mapping[str, float] = field(default_factory=dict)

    @property
    def key(self) -> Key:
        """What identifies the run within its study."""
        return self.workload, self.variant, self.scale, self.seed


@dataclass(frozen=True, kw_only=True)
class Records:
    """All that a study has left behind.

    Attributes:
        runs: one record a run of the config, in the config's order.
        parity: verdicts by workload.
        apart: name and reason of everything that was found and not used.
    """

    study: Study
    runs: Sequence[Record]
    parity: Mapping[str, Mapping[str, Any]]
    apart: Sequence[tuple[str, str]]

    @property
    def unfinished(self) -> list[Record]:
        """Runs that have not come to an end: a failed run has, an interrupted one has not."""
        return [run for run in self.runs if run.status in (INTERRUPTED, MISSING)]


def load(study: Study) -> Records:
    """Read everything below the study's folder that the report needs."""
    manifests = {name: _manifest(study.manifest(name)) for name in study.blocks}
    listed = {run.name: name for name, block in study.blocks.items() for run in block.runs}
    runs = [_record(study, run, manifests[listed[run.name]]) for run in study.runs]
    apart = [(str(run.folder), run.reason or "") for run in runs if run.status == APART]
    apart += _strangers(study)
    parity = {}
    for workload in study.config["workloads"]:
        try:
            verdict = _parity(study, workload)
        except Unsound as problem:
            apart.append((_below(study, study.verdict(workload)), str(problem)))
        else:
            if verdict is not None:
                parity[workload] = verdict
    return Records(study=study, runs=runs, parity=parity, apart=apart)


# One run --------------------------------------------------------------------------------------


def _record(study: Study, run: Run, manifest: Mapping[str, Any]) -> Record:
    folder = study.run_folder(run)
    known: dict[str, Any] = {
        "workload": run.workload,
        "variant": run.variant,
        "scale": str(run.scale),
        "seed": run.seed,
        "folder": Path(_below(study, folder)),
    }
    try:
        if not (folder / "summary.json").is_file():
            status, reason = _why_none(folder)
            return Record(**known, status=status, reason=reason)
        contents = _contents(folder, manifest.get(run.name, {}))
        summary = read_summary(study, run, contents["summary.json"])
        epochs = read_columns(contents["epochs.csv"], "epochs.csv")
        windows = read_columns(contents["windows.csv"], "windows.csv")
        failure = check(summary, epochs, windows)
    except Unsound as problem:
        return Record(**known, status=APART, reason=str(problem))
    return Record(
        **known,
        status=FAILED if failure else FINISHED,
        reason=failure,
        summary=summary,
        epochs=epochs,
        windows=window_digest(windows),
    )


def _why_none(folder: Path) -> tuple[str, str]:
    """Return status and reason of a run without a summary."""
    failure = folder / "failure.json"
    if failure.is_file():
        try:
            reason = str(json.loads(failure.read_bytes())["reason"])
        except (ValueError, KeyError, TypeError, OSError):
            return INTERRUPTED, "stopped, and its failure.json is not readable"
        if reason == "interrupted":
            return INTERRUPTED, "interrupted at a checkpoint; start again to go on"
        if reason == "signal 9":
            reason = "killed (signal 9), as happens when memory runs out"
        return FAILED, f"{reason}; see its log"
    if (folder / "run.json").is_file():
        return MISSING, "started, but left no record"
    return MISSING, "never started"


def _contents(folder: Path, listed: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the bytes of a run's small records, checked against its block's manifest."""
    contents = {}
    for name in ("summary.json", "epochs.csv", "windows.csv"):
        try:
            contents[name] = (folder / name).read_bytes()
        except OSError as error:
            raise Unsound(f"{name} cannot be read ({error.strerror})") from error
    hashes = listed.get("sha256", {})
    # A manifest of another identity tells of an earlier run in this folder, and binds nothing.
    if listed.get("identity", "").encode() in contents["summary.json"]:
        for name, content in contents.items():
            if name in hashes and hashlib.sha256(content).hexdigest() != hashes[name]:
                raise Unsound(f"{name} was changed after its block was finished (sha256 differs)")
    return contents


def window_digest(windows: Columns) -> dict[str, float]:
    """Return the few numbers that the report wants of a run's windows.

    Returns:
        `first_seconds`: the warm-up windows, without waiting for data.
        `drift`: median step time of the last third of the steady windows over that of the first
        third, less 1; absent below nine windows. Thirds and medians, so that single slow windows
        do not look like a trend.
    """
    if not windows:
        return {}
    warm = windows["warm_up"] > 0
    digest = {"first_seconds": float((windows["seconds"] - windows["data_seconds"])[warm].sum())}
    per_step = windows["seconds"][~warm] / windows["steps"][~warm]
    third = len(per_step) // 3
    if third >= 3:
        digest["drift"] = float(np.median(per_step[-third:]) / np.median(per_step[:third]) - 1)
    return digest


# The rest -------------------------------------------------------------------------------------


def _manifest(path: Path) -> Mapping[str, Any]:
    """Return the runs that a block's manifest lists; a block without one lists none."""
    try:
        runs = json.loads(path.read_bytes())["runs"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return runs if isinstance(runs, dict) else {}


def _strangers(study: Study) -> Iterator[tuple[str, str]]:
    """Yield folders of runs that the config does not ask for."""
    known = {study.run_folder(run) for run in study.runs}
    for path in sorted((study.root / "runs").glob("*/*/*/seed-*")):
        if path not in known:
            yield _below(study, path), "the study's config does not ask for this run"


def _parity(study: Study, workload: str) -> dict[str, Any] | None:
    path = study.verdict(workload)
    if not path.is_file():
        return None
    try:
        verdict = json.loads(path.read_bytes())
    except ValueError as error:
        raise Unsound(f"not whole ({error})") from error
    if not isinstance(verdict, dict) or verdict.get("schema") not in PARITY_SCHEMAS:
        raise Unsound("not a parity verdict that this version reads")
    if verdict.get("workload") != workload:
        raise Unsound(f"foreign: it is the verdict of workload {verdict.get('workload')!r}")
    if not isinstance(verdict.get("comparisons"), dict) or "reference" not in verdict:
        raise Unsound("it holds no comparisons")
    says = all(c["passed"] for c in verdict["comparisons"].values())
    if says != verdict.get("passed"):
        raise Unsound("contradictory: its conclusion is not that of its comparisons")
    for variant, comparison in verdict["comparisons"].items():
        if comparison["passed"] != all(rung["passed"] for rung in comparison["rungs"]):
            raise Unsound(f"contradictory: {variant}'s conclusion is not that of its rungs")
    return verdict


def _below(study: Study, path: Path) -> str:
    return path.relative_to(study.root).as_posix()
