"""What the description says of the study, its datasets, images and runs: written by `crate`, and
compared by `described`, which needs not the library that writes it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lockstep.archive import people, story
from lockstep.archive.completeness import read
from lockstep.study import Study


def root(add: people.Add, about: people.About, note: str) -> dict[str, Any]:
    """Return what is said of the whole archive.

    Args:
        add: adds an entity that is no file, and returns it.
        note: what a reader must know first: whether runs are missing.
    """
    return {
        "name": about.title,
        "description": f"{about.description} {note}",
        "keywords": list(about.keywords),
        **({"citation": about.citation} if about.citation else {}),
        "author": [people.add_author(add, author) for author in about.authors],
        "publisher": people.add_organization(add, about.publisher),
        "license": people.add_licence(add, about.licence),
    }


def dataset(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of a dataset, by its manifest."""
    return {
        "name": told["name"],
        "description": f"{told['origin']}; content {told['content']}",
        "license": told["licence"],
        "isBasedOn": told["origin"],
        "identifier": told["identity"],
    }


def image(told: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """Return what is said of an image, by its manifest and what its folder is called."""
    return {"name": folder, "tag": told["identity"], "sha256": told["sif"]["sha256"]}


def train(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is said of how a run ended, by its record."""
    reason = summary.get("reason")
    ended = {"endTime": summary["ended"]} if summary.get("ended") else {}
    failed = {"actionStatus": story.FAILED, "error": reason}
    return ended | (failed if reason else {"actionStatus": story.COMPLETED})


def of_runs(study: Study) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what is said of runs and of their initial weights, each with its identifier."""
    states: dict[str, dict[str, Any]] = {}
    for run in study.runs:
        summary = read(study.run_folder(run) / "summary.json")
        try:
            weights = summary["contract"]["determined_by"]["weights"]
        except (KeyError, TypeError):
            continue  # what it is instead is said elsewhere
        yield f"#train-{run.name}", train(summary)
        states.setdefault(f"#state-{run.workload}-{run.seed}", {"value": weights})
    yield from states.items()
