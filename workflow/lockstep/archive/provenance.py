"""What was done in a study, as its records say: every stage's jobs, in the order of the data."""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lockstep.archive import layout
from lockstep.archive.layout import Read
from lockstep.study import Study

STAGES = {
    "image": "Build an image, or take it from the cache",
    "preprocess": "Bring a dataset into shards",
    "weights": "Make initial weights",
    "trace": "Climb the parity ladder with one variant",
    "parity": "Compare the traces of a workload",
    "train": "Train a run",
    "deploy": "Compare what comes after training",
    "report": "Make the report from the records",
}
"""In the order in which data flows; also the names of the rules and commands."""

FRAMEWORKS = {
    "torch": ("PyTorch", "https://pytorch.org"),
    "jax": ("JAX", "https://docs.jax.dev"),
    "flax": ("Flax", "https://flax.readthedocs.io"),
    "optax": ("Optax", "https://optax.readthedocs.io"),
}
"""Packages that runs are made with, by the names that records have: what they are called, and
where they are at home.
"""


@dataclass(frozen=True, kw_only=True)
class Action:
    """A job of a stage, or one run of a block."""

    stage: str  # a key of `STAGES`
    name: str  # within its stage
    started: str | None  # when, in UTC; None where no record says it
    ended: str
    # names in the archive: files, folders (ending in a slash) and states (`#…`)
    uses: Sequence[str]
    makes: Sequence[str]
    image: str | None  # identity of the image it ran in; None without one
    packages: Mapping[str, str]  # versions, by name
    failure: str | None = None  # why its result is not what was wanted
    # sha256 of the initial weights that it used, by their name
    states: Mapping[str, str] = field(default_factory=dict)


def span(actions: Sequence[Action]) -> tuple[str | None, str]:
    """Return when the first action began, and when the last one ended."""
    ended = max((a.ended for a in actions), default="1970-01-01T00:00:00+00:00")
    return min((a.started for a in actions if a.started), default=None), ended


def version(actions: Sequence[Action], package: str) -> str | None:
    """Return a package's version in the latest action that knows it."""
    known = [(a.ended, a.packages[package]) for a in actions if package in a.packages]
    return max(known)[1] if known else None


def actions(study: Study, names: Collection[str], read: Read) -> list[Action]:
    """Return what happened in a study; an action without a sound record is left out.

    Args:
        study: whose paths are names in the archive.
        names: what the archive holds.
        read: returns the JSON of an archived file.
    """
    data: dict[str, list[str]] = {}
    for folder, told in layout.manifests(names, read).items():
        data.setdefault(f"{folder.split('/')[1]}/{told['name']}", []).append(f"{folder}/")
    found = list(_jobs(study, {*names}, read, data))
    for run in study.runs:
        own, state = study.run_folder(run), f"#state-{run.workload}-{run.seed}"
        dataset = data.get(f"datasets/{study.workload(run.workload)['dataset']}", [])
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            summary = read(f"{own}/summary.json")
            contract = summary["contract"]
            host, engine = contract["host"], contract["engine"]
            attempts = (host.get("job") or {}).get("attempts") or [{}]
            found.append(
                Action(stage="train", name=run.name, started=attempts[0].get("started"),
                       ended=str(summary["ended"]), uses=[*dataset, state], makes=[f"{own}/"],
                       image=(host.get("image") or {}).get("identity"),
                       packages={p: str(engine[p]) for p in FRAMEWORKS if p in engine},
                       failure=summary.get("reason"),
                       states={state: str(contract["determined_by"]["weights"])})
            )  # fmt: skip
    return sorted(found, key=lambda action: [*STAGES].index(action.stage))


def _jobs(
    study: Study, names: set[str], read: Read, data: Mapping[str, list[str]]
) -> Iterator[Action]:
    """Yield the jobs of all stages but training that have a log."""
    top = f"{study.root}/"

    def job(
        stage: str, name: str, uses: list[str], makes: list[str], failure: str | None = None
    ) -> Iterator[Action]:
        record = read(f"{top}logs/{stage}/{name}.json")
        with contextlib.suppress(KeyError, TypeError, AttributeError):
            packages = {str(k): str(v) for k, v in record["packages"].items()}
            yield Action(stage=stage, name=name, started=str(record["started"]),
                         ended=str(record["ended"]), uses=uses, makes=makes,
                         image=record["image"], packages=packages, failure=failure)  # fmt: skip

    for name in ("base", "torch", "jax"):
        if made := data.get(f"images/{name}"):
            yield from job("image", name, [f"{layout.SOURCE}containers/"], made)
    for name in sorted({study.workload(w)["dataset"] for w in study.config["workloads"]}):
        yield from job("preprocess", name, [layout.STUDY], data.get(f"datasets/{name}", []))
    for workload in study.config["workloads"]:
        dataset = data.get(f"datasets/{study.workload(workload)['dataset']}", [])
        parity, verdict = f"{top}parity/{workload}/", str(study.verdict(workload))
        for seed in study.config["seeds"]:
            state = f"#state-{workload}-{seed}"
            yield from job("weights", f"{workload}-{seed}", [layout.STUDY], [state])
        for variant in study.traces():
            if str(study.trace(workload, variant)) in names:
                yield from job("trace", f"{workload}-{variant}", dataset, [parity])
        if verdict in names:
            failure = None if str(study.passed(workload)) in names else "parity fails"
            yield from job("parity", workload, [parity], [verdict], failure)
    for workload in study.deployed:
        record = str(study.deployment(workload))
        if record in names:
            yield from job("deploy", workload, [f"{top}runs/"], [record])
    if str(study.report()) in names:
        made = [f"{top}report/index.html", f"{top}report/report.json"]
        yield from job("report", "study", [f"{top}runs/"], made)
