"""What happened, as the records tell it: every stage's jobs in the order in which data flowed."""

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lockstep.archive import layout
from lockstep.images.study_image import StudyImage
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
"""In the order in which data flows; also the rules' and the commands' names."""

Images = Mapping[str, StudyImage]

COMPLETED = "http://schema.org/CompletedActionStatus"
FAILED = "http://schema.org/FailedActionStatus"


@dataclass(frozen=True, kw_only=True)
class Deed:
    """One job of a stage, or one run of a block.

    Attributes:
        stage: a key of `STAGES`.
        name: within its stage.
        ended: when, in UTC.
        recorded: whether a record says so; else it is when its output was written.
        uses, makes: names in the archive: files, folders (ending in a slash) and values (`#…`).
        image: name of the image it ran in, if any.
        failure: why its result is not what was wanted.
    """

    stage: str
    name: str
    ended: str
    recorded: bool
    uses: Sequence[str]
    makes: Sequence[str]
    image: str | None = None
    failure: str | None = None


@dataclass(frozen=True, kw_only=True)
class Story:
    """All deeds of a study, and the values that they made or used.

    Attributes:
        values: what is known of what is not in the archive itself: name and hash of weights.
        snakemake: version of Snakemake beside the latest job that tells; None if none does.
    """

    deeds: Sequence[Deed]
    values: Mapping[str, tuple[str, str]]
    snakemake: str | None

    @property
    def ended(self) -> str:
        """When the last deed was done."""
        return max((deed.ended for deed in self.deeds), default="1970-01-01T00:00:00+00:00")


def tell(study: Study, names: set[str], *, images: Images | None = None) -> Story:
    """Return what happened in a study.

    Args:
        names: what the archive holds.
        images: those that the study runs in, if not those that this checkout would build.
    """
    values: dict[str, tuple[str, str]] = {}
    deeds = list(_deeds(study, names, values, study.images if images is None else images))
    return Story(deeds=deeds, values=values, snakemake=_snakemake(study))


def _deeds(
    study: Study, names: set[str], values: dict[str, tuple[str, str]], images: Images
) -> Iterator[Deed]:
    top = f"{layout.RESULTS}{study.name}/"
    inside = _inside(images, "base")
    for image in images.values():
        if image.manifest.is_file():
            yield Deed(
                stage="image",
                name=image.name,
                **_ended(study, "image", image.name, image.manifest),
                uses=[f"{layout.SOURCE}containers/"],
                makes=[f"{layout.DATA}images/{image.folder.name}/"],
            )
    shards = {}
    for folder in _datasets(study, names):
        manifest = json.loads((folder / "manifest.json").read_bytes())
        shards[manifest["name"]] = f"{layout.DATA}datasets/{folder.name}/"
        yield Deed(
            stage="preprocess",
            name=manifest["name"],
            **_ended(study, "preprocess", manifest["name"], folder / "manifest.json"),
            uses=[layout.STUDY],
            makes=[shards[manifest["name"]]],
            image=inside,
        )
    for workload in study.config["workloads"]:
        yield from _of_workload(study, values, workload, shards, images)
    if study.report().is_file():
        yield Deed(
            stage="report",
            name=study.name,
            **_ended(study, "report", "study", study.report()),
            uses=[f"{top}runs/"] if any(n.startswith(f"{top}runs/") for n in names) else [],
            makes=[f"{top}report/index.html", f"{top}report/report.json"],
            image=inside,
        )


def _inside(images: Images, name: str) -> str | None:
    """Return the image of a stage, None if it is not there (yet) or the study has none."""
    image = images.get(name)
    return name if image and image.manifest.is_file() else None


def _datasets(study: Study, names: set[str]) -> list[Path]:
    parts = (name.split("/") for name in names if name.startswith(f"{layout.DATA}datasets/"))
    return sorted({study.data / "datasets" / part[2] for part in parts})


def _of_workload(
    study: Study,
    values: dict[str, tuple[str, str]],
    workload: str,
    shards: Mapping[str, str],
    images: Images,
) -> Iterator[Deed]:
    inside = _inside(images, "base")
    top = f"{layout.RESULTS}{study.name}/"
    dataset = [shards[d] for d in [study.workload(workload)["dataset"]] if d in shards]
    records = dict(_records(study, workload))
    for seed in study.config["seeds"]:
        found = [s for (_, _, number), s in records.items() if number == seed]
        if not found and not study.weights(workload, seed).is_file():
            continue
        value = f"#state-{workload}-{seed}"
        known = found[0]["contract"]["determined_by"]["weights"] if found else "not recorded"
        values[value] = (f"Initial weights of {workload}, seed {seed} (sha256)", known)
        name = f"{workload}-{seed}"
        yield Deed(
            stage="weights",
            name=name,
            **_ended(study, "weights", name, study.weights(workload, seed)),
            uses=[layout.STUDY],
            makes=[value],
            image=inside,
        )
    for variant in study.traces():
        path = study.trace(workload, variant)
        if path.is_file():
            name = f"{workload}-{variant}"
            framework = study.variant(variant)["framework"]
            yield Deed(
                stage="trace",
                name=name,
                **_ended(study, "trace", name, path),
                uses=dataset,
                makes=[f"{top}parity/{workload}/"],
                image=_inside(images, framework),
            )
    verdict = study.verdict(workload)
    if verdict.is_file():
        passed = study.passed(workload).is_file()
        yield Deed(
            stage="parity",
            name=workload,
            **_ended(study, "parity", workload, verdict),
            uses=[f"{top}parity/{workload}/"],
            makes=[f"{top}parity/{workload}/verdict.json"],
            image=inside,
            failure=None if passed else "parity fails",
        )
    for run in study.runs:
        summary = records.get((run.variant, str(run.scale), run.seed))
        if run.workload == workload and summary is not None:
            yield Deed(
                stage="train",
                name=run.name,
                **_when(summary, study.run_folder(run) / "summary.json"),
                uses=[*dataset, f"#state-{workload}-{run.seed}"],
                makes=[f"{top}runs/{run.name}/"],
                image=_inside(images, study.variant(run.variant)["framework"]),
                failure=summary.get("reason"),
            )


def _records(study: Study, workload: str) -> Iterator[tuple[tuple[str, str, int], dict[str, Any]]]:
    for run in study.runs:
        if run.workload == workload:
            try:
                summary = json.loads((study.run_folder(run) / "summary.json").read_bytes())
                summary["contract"]["determined_by"]["weights"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
            yield (run.variant, str(run.scale), run.seed), summary


def _snakemake(study: Study) -> str | None:
    told = []
    for path in (study.root / "logs").glob("*/**/*.json"):
        try:
            job = json.loads(path.read_bytes())
            told.append((str(job["ended"]), str(job["packages"]["snakemake"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # in an image there is no Snakemake
    return max(told)[1] if told else None


def _ended(study: Study, stage: str, name: str, output: Path) -> dict[str, Any]:
    """Return when a job ended, by its own record if there is one."""
    try:
        job = json.loads((study.root / "logs" / stage / f"{name}.json").read_bytes())
        return _when({"ended": job["ended"]}, output)
    except (OSError, ValueError, KeyError, TypeError):
        return _when({}, output)


def _when(record: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Return when something ended: by its record, or by when its output was written."""
    ended = record.get("ended")
    if ended:
        return {"ended": str(ended), "recorded": True}
    return {"ended": _written(output), "recorded": False}


def _written(path: Path) -> str:
    seconds = path.stat().st_mtime if path.exists() else 0
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
