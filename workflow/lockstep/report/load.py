"""Reads a study's records. Nothing that is wrong with one of them keeps the others from being read.

Every run that the config asks for becomes a `Record`, whether it left records or not. A record
that is empty, truncated, foreign, contradictory or of an unknown schema is *set apart*: it stays
in the list of runs with the reason and takes no part in any number.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.report import judged, step_losses, windows
from lockstep.report.record_validation import (
    FAILED,
    FINISHED,
    Unsound,
    check,
    parsed,
    read_columns,
    read_summary,
)
from lockstep.report.windows import Columns
from lockstep.study import Study
from lockstep.study.run import Run

INTERRUPTED = "interrupted"
MISSING = "missing"
APART = "set apart"

FIRST_LOSSES = 20  # of a run that are compared with its partner's

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
        windows: what is kept of ``windows.csv`` (see `lockstep.report.windows.digest`).
        first_losses: of the first steps; None if they are not known.
        steps_problem: why ``steps.npz`` of a finished run cannot be used.
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
    windows: Mapping[str, Any] = field(default_factory=dict)
    first_losses: np.ndarray | None = None
    steps_problem: str | None = None

    @property
    def begun_elsewhere(self) -> str | None:
        """Why its times and its learning are not its own, None if they are.

        It may have been begun from a checkpoint of another run, even of the other framework.
        """
        origin = self.summary.get("resumed_from")
        if not origin:
            return None
        return (
            f"begun at step {origin['step']} from a checkpoint of another run "
            f"({origin['identity'][:12]}): what came before is not its own"
        )

    @property
    def disturbed(self) -> str | None:
        """Why its times must not be compared with another run's, None if they may."""
        if self.windows.get("enough", True):
            return None
        return (
            "other programs used its CPU cores: only {undisturbed} of its {timed} timed windows "
            "were undisturbed".format_map(self.windows)
        )

    @property
    def whole_seconds(self) -> float:
        """From the start of its process to its end."""
        return sum(s for phase, s in self.summary["seconds"].items() if phase != "data_wait")

    @property
    def gave_up(self) -> bool:
        """Whether it ended early because other programs left it nothing to measure."""
        seen = self.summary.get("contention")
        return isinstance(seen, Mapping) and seen.get("gave_up") is True

    @property
    def unwatched(self) -> str | None:
        """Why nobody can say whether it had to share its cores, None if that was watched."""
        seen = self.summary.get("contention")
        if not isinstance(seen, Mapping):
            return "the records are older than this measurement"
        return None if seen.get("watched") is True else str(seen.get("reason") or "no reason given")

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
        """Runs of which nothing can be said: a failed run is none, an interrupted one is."""
        return [run for run in self.runs if run.status not in (FINISHED, FAILED)]


def load(study: Study) -> Records:
    """Read everything below the study's folder that the report needs."""
    apart: list[tuple[str, str]] = []
    manifests = {}
    for name in study.blocks:
        manifests[name], wrong = _manifest(study.manifest(name))
        apart += [(_below(study, study.manifest(name)), why) for why in wrong]
    listed = {run.name: name for name, block in study.blocks.items() for run in block.runs}
    runs = []
    for run in study.runs:
        block = listed[run.name]
        runs.append(_record(study, run, manifests[block]))
        apart += _unbound(study, block, run.name, manifests[block], runs[-1])
    apart += [(str(run.folder), run.reason or "") for run in runs if run.status == APART]
    apart += [(f"{run.folder}/steps.npz", run.steps_problem) for run in runs if run.steps_problem]
    apart += _unexpected_folders(study)
    parity = {}
    for workload in study.config["workloads"]:
        try:
            verdict = judged.read(study, workload)
        except Unsound as problem:
            apart.append((_below(study, study.verdict(workload)), str(problem)))
        else:
            if verdict is not None:
                parity[workload] = verdict
    return Records(study=study, runs=runs, parity=parity, apart=apart)


# One run --------------------------------------------------------------------------------------


def _record(study: Study, run: Run, manifest: Mapping[str, Any]) -> Record:
    folder = study.run_folder(run)
    below = Path(_below(study, folder))
    known: dict[str, Any] = {name: getattr(run, name) for name in ("workload", "variant", "seed")}
    known |= {"scale": str(run.scale), "folder": below}
    try:
        if not (folder / "summary.json").is_file():
            status, reason = _why_none(folder)
            return Record(**known, status=status, reason=reason)
        contents = {name: (folder / name).read_bytes() for name in SMALL}
        summary = read_summary(study, run, contents["summary.json"])
        hashes = _bound(summary, contents, manifest.get(run.name, {}))
        epochs, rows = (read_columns(contents[name], name) for name in SMALL[1:])
        failure = check(summary, epochs, rows)
        batch = summary["contract"]["recipe"]["global_batch"]
        digest = windows.digest(rows, batch, windows.cpus(summary))
        if digest and "absent" in summary["steady"]:
            digest["steady"] = None
    except OSError as error:
        name = Path(error.filename or "a record").name
        return Record(**known, status=APART, reason=f"{name} cannot be read ({error.strerror})")
    except Unsound as problem:
        return Record(**known, status=APART, reason=str(problem))
    except Exception as error:  # whatever one record holds, the others are reported
        return Record(**known, status=APART, reason=f"its records cannot be read ({error!r})")
    known |= {"summary": summary, "epochs": epochs, "windows": digest}
    if failure:
        return Record(**known, status=FAILED, reason=failure)
    try:
        losses = step_losses.losses(folder, summary, hashes.get("steps.npz"))
    except Unsound as problem:
        return Record(**known, status=FINISHED, steps_problem=str(problem))
    except Exception as error:
        return Record(**known, status=FINISHED, steps_problem=f"not readable ({error!r})")
    return Record(**known, status=FINISHED, first_losses=losses[:FIRST_LOSSES].copy())


SMALL = ("summary.json", "epochs.csv", "windows.csv")
"""Records that are read whole, of every run."""


def _why_none(folder: Path) -> tuple[str, str]:
    """Return status and reason of a run without a summary."""
    failure = folder / "failure.json"
    if not failure.is_file():
        started = (folder / "run.json").is_file()
        return MISSING, "started, but left no record" if started else "never started"
    try:
        reason = str(parsed(failure.read_bytes())["reason"])
    except (Unsound, KeyError, TypeError, OSError):
        return INTERRUPTED, "stopped, and its failure.json is not readable"
    if reason == "interrupted":
        return INTERRUPTED, "interrupted at a checkpoint; start again to go on"
    if reason == "signal 15":
        return INTERRUPTED, "stopped (signal 15) before it reached a checkpoint; start again"
    if reason == "signal 9":
        reason = "killed (signal 9), as happens when memory runs out"
    return FAILED, f"{reason}; see its log"


def _bound(
    summary: Mapping[str, Any], contents: Mapping[str, bytes], listed: Mapping[str, Any]
) -> Mapping[str, str]:
    """Return the hashes that bind a run's records; a manifest of another identity binds nothing.

    Raises:
        Unsound: a record was changed.
    """
    if not listed or listed["identity"] != summary["identity"]:
        return {}
    hashes: Mapping[str, str] = listed["sha256"]
    for name, content in contents.items():
        if name in hashes and hashlib.sha256(content).hexdigest() != hashes[name]:
            raise Unsound(f"{name} was changed after its block was finished (sha256 differs)")
    return hashes


# The rest -------------------------------------------------------------------------------------


def _manifest(path: Path) -> tuple[Mapping[str, Any], list[str]]:
    """Return the runs that a block's manifest lists, and what is wrong with it.

    A block without a manifest lists none; an entry that cannot be read binds nothing.
    """
    if not path.is_file():
        return {}, []
    try:
        entries = dict(parsed(path.read_bytes())["runs"].items())
    except (AttributeError, OSError, KeyError, TypeError, Unsound) as error:
        return {}, [f"not a block's manifest ({error!r})"]
    kinds = {"identity": str, "sha256": dict}
    sound = {
        name: entry
        for name, entry in entries.items()
        if isinstance(entry, dict) and all(isinstance(entry.get(k), t) for k, t in kinds.items())
    }
    return sound, [f"its entry of {name} is not sound" for name in entries if name not in sound]


def _unbound(
    study: Study, block: str, run: str, manifest: Mapping[str, Any], record: Record
) -> Iterator[tuple[str, str]]:
    """Yield a manifest's entry that is of another run than the one that is there."""
    entry = manifest.get(run)
    if entry and record.summary and record.summary["identity"] != entry["identity"]:
        why = f"its entry of {run} has another identity: not bound by its block's manifest"
        yield _below(study, study.manifest(block)), why


def _unexpected_folders(study: Study) -> Iterator[tuple[str, str]]:
    """Yield folders of runs that the config does not ask for."""
    known = {study.run_folder(run) for run in study.runs}
    for path in sorted((study.root / "runs").glob("*/*/*/seed-*")):
        if path not in known:
            yield _below(study, path), "the study's config does not ask for this run"


def _below(study: Study, path: Path) -> str:
    return path.relative_to(study.root).as_posix()
