"""What was done in a study, as its records say: every stage's jobs, in the order of the data."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lockstep.archive import layout
from lockstep.archive.completeness import Read
from lockstep.study import Study

STAGES = {
    "image": "Build an image, or take it from the cache",
    "preprocess": "Bring a dataset into shards",
    "weights": "Make initial weights",
    "trace": "Climb the parity ladder with one variant",
    "parity": "Compare the traces of a workload",
    "train": "Train a run",
    "report": "Make the report from the records",
}
"""In the order in which data flows; also the names of the rules and commands."""


@dataclass(frozen=True, kw_only=True)
class Action:
    """A job of a stage, or one run of a block.

    Attributes:
        stage: a key of `STAGES`.
        name: within its stage.
        started, ended: when, in UTC; None where no record says it.
        uses, makes: names in the archive: files, folders (ending in a slash) and values (`#…`).
        image: identity of the image it ran in; None without one.
        packages: versions, by name.
        failure: why its result is not what was wanted.
    """

    stage: str
    name: str
    started: str | None
    ended: str
    uses: Sequence[str]
    makes: Sequence[str]
    image: str | None = None
    packages: tuple[tuple[str, str], ...] = ()
    failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """All recorded actions of a study.

    Attributes:
        weights: identifier, description and sha256 of the initial weights that runs began from.
    """

    actions: Sequence[Action]
    weights: Sequence[tuple[str, str, str]]

    @property
    def started(self) -> str | None:
        """When the first action began."""
        return min((a.started for a in self.actions if a.started), default=None)

    @property
    def ended(self) -> str:
        """When the last action ended."""
        return max((a.ended for a in self.actions), default="1970-01-01T00:00:00+00:00")

    def version(self, package: str) -> str | None:
        """Return a package's version in the latest action that knows it."""
        known = [(a.ended, dict(a.packages)[package]) for a in self.actions
                 if package in dict(a.packages)]  # fmt: skip
        return max(known)[1] if known else None


def of(study: Study, names: Collection[str], read: Read) -> Provenance:
    """Return what happened in a study; what has no record of its job is not told.

    Args:
        study: whose paths are names in the archive.
        names: what the archive holds.
        read: returns the JSON of an archived file.
    """
    summaries = {run: _sound(read(f"{study.run_folder(run)}/summary.json")) for run in study.runs}
    weights: dict[str, tuple[str, str, str]] = {}
    for run, summary in summaries.items():
        if summary:
            identifier = f"#state-{run.workload}-{run.seed}"
            says = f"Initial weights of {run.workload}, seed {run.seed} (sha256)"
            value = str(summary["contract"]["determined_by"]["weights"])
            weights.setdefault(identifier, (identifier, says, value))
    actions = list(_actions(study, {*names}, read, summaries, weights))
    return Provenance(actions=actions, weights=list(weights.values()))


def _sound(summary: Any) -> dict[str, Any] | None:
    """Return a summary that says what is read here, None of any other."""
    try:
        str(summary["ended"]), summary["contract"]["determined_by"]["weights"]
        summary["contract"]["host"].get("image"), dict(summary["contract"]["engine"])
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    found: dict[str, Any] = summary
    return found


def _actions(
    study: Study, names: set[str], read: Read, summaries: dict, weights: dict
) -> Iterator[Action]:
    top = f"{layout.RESULTS}{study.name}/"

    def job(stage: str, name: str, uses: list[str], makes: list[str], **more: Any) -> list[Action]:
        record = read(f"{top}logs/{stage}/{name}.json")
        try:
            packages = tuple(sorted((str(k), str(v)) for k, v in record["packages"].items()))
            return [
                Action(stage=stage, name=name, started=str(record["started"]),
                       ended=str(record["ended"]), uses=uses, makes=makes,
                       image=record["image"], packages=packages, **more)
            ]  # fmt: skip
        except (KeyError, TypeError, AttributeError):
            return []

    folders = {name.rpartition("/")[0] + "/" for name in names if name.startswith(layout.DATA)}
    data: dict[str, list[str]] = {}
    for folder in sorted(folders):
        name = str((read(f"{folder}manifest.json") or {}).get("name"))
        images = folder.startswith(f"{layout.DATA}images/")
        data.setdefault(f"image {name}" if images else name, []).append(folder)
    for name in ("base", "torch", "jax"):
        if f"image {name}" in data:
            made = data[f"image {name}"]
            yield from job("image", name, [f"{layout.SOURCE}containers/"], made)
    for name in sorted({study.workload(w)["dataset"] for w in study.config["workloads"]}):
        yield from job("preprocess", name, [layout.STUDY], data.get(name, []))
    for workload in study.config["workloads"]:
        dataset = data.get(study.workload(workload)["dataset"], [])
        parity = f"{top}parity/{workload}/"
        for seed in study.config["seeds"]:
            value = f"#state-{workload}-{seed}"
            made = [value] if value in weights else []
            yield from job("weights", f"{workload}-{seed}", [layout.STUDY], made)
        for variant in study.traces():
            if str(study.trace(workload, variant)) in names:
                yield from job("trace", f"{workload}-{variant}", dataset, [parity])
        verdict = str(study.verdict(workload))
        if verdict in names:
            failure = None if str(study.passed(workload)) in names else "parity fails"
            yield from job("parity", workload, [parity], [verdict], failure=failure)
        for run in study.runs:
            summary = summaries[run]
            if run.workload == workload and summary:
                state = f"#state-{workload}-{run.seed}"
                yield _trained(run.name, summary, [*dataset, state], f"{top}runs/{run.name}/")
    if str(study.report()) in names:
        runs = [f"{top}runs/"] if any(n.startswith(f"{top}runs/") for n in names) else []
        made = [f"{top}report/index.html", f"{top}report/report.json"]
        yield from job("report", "study", runs, made)


def _trained(name: str, summary: dict[str, Any], uses: list[str], folder: str) -> Action:
    contract = summary["contract"]
    host, engine = contract["host"], contract["engine"]
    attempts = (host.get("job") or {}).get("attempts") or [{}]
    image = host.get("image") or {}
    versions = tuple((p, str(engine[p])) for p in ("torch", "jax", "flax", "optax") if p in engine)
    return Action(
        stage="train",
        name=name,
        started=attempts[0].get("started"),
        ended=str(summary["ended"]),
        uses=uses,
        makes=[folder],
        image=image.get("identity"),
        packages=versions,
        failure=summary.get("reason"),
    )
