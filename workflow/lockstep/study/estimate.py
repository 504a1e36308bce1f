"""How large a study is, and about how long it takes, from the records of earlier runs."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from lockstep import files
from lockstep.errors import UserError
from lockstep.study import Study, feasible
from lockstep.study.identity import run_code

LENGTH = ("epochs", "max_steps")  # keys of a recipe that say how long a run is
IRRELEVANT = (*LENGTH, "dataset", "target")
LONG = ("training", "evaluation", "checkpoint")  # phases that grow with a run's length


def lines(study: Study) -> list[str]:
    """Return what there is to do, and about how long it takes where that is known."""
    workloads, seeds = len(study.config["workloads"]), len(study.config["seeds"])
    datasets = len({entry["dataset"] for entry in study.config["workloads"].values()})
    before = datasets + workloads * (seeds + len(study.traces()) + 1) + len(study.images)
    counted = (
        f"study {study.name}, {_some(len(study.runs), 'run')} in "
        f"{_some(len(study.blocks), 'job')}, after {_some(before, 'job')} that prepare them"
    )
    return [counted, *_replaced(study), *_time(study), *_brief(study)]


def _replaced(study: Study) -> Iterator[str]:
    """Yield a line if finished runs of this name will be trained again, and lost."""
    count = 0
    for run in study.runs:
        try:
            summary = files.read_json(study.run_folder(run) / "summary.json")
            by, finished = summary["contract"]["determined_by"], summary["status"] == "finished"
            same = by["settings"] == study.run_config(run)
            count += finished and not (same and by["code"] == run_code(*study.framework(run)))
        except (UserError, KeyError, TypeError, OSError):
            continue
    if count:
        yield (
            f"{_some(count, 'finished run')} in {study.root} had other settings or other code and "
            "will be replaced; to keep what is there give the study another name"
        )


def _brief(study: Study) -> Iterator[str]:
    """Yield lines for workloads whose runs are too short to warm up, or for a step time."""
    window = study.config["window_steps"]
    for name, entry in study.config["workloads"].items():
        warmup, epochs = entry["schedule"]["warmup_epochs"], entry["epochs"]
        if warmup >= epochs and not entry["max_steps"]:
            yield f"{name} warms up for {warmup:g} epochs and trains {epochs}: for too long"
        examples = feasible.training_examples(study, entry["dataset"])
        if examples is None:
            continue
        full, rest = divmod(examples, entry["global_batch"])
        epoch = full if entry["drop_last"] else full + bool(rest)
        steps = min(entry["epochs"] * epoch, entry["max_steps"] or math.inf)
        if steps <= min(window, epoch):  # a window ends where an epoch does
            yield (
                f"a run of {name} has {steps} steps, which is one window of window_steps "
                f"({window}) alone, and no step time; set window_steps to {max(1, steps // 10)}"
            )


def _time(study: Study) -> list[str]:
    earlier = _earlier(study)
    known = [
        seconds
        for run in study.runs
        if (seconds := _expected(study.run_config(run), earlier)) is not None
    ]
    if not known:
        return []
    of = "they" if len(known) == len(study.runs) else f"{len(known)} of them"
    return [f"by earlier runs of their kind {of} take about {_words(sum(known))}, one at a time"]


def _earlier(study: Study) -> dict[str, Mapping[str, Any]]:
    """Return the last summary of each kind of run among the results of all studies."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(study.root.parent.glob("*/runs/**/summary.json")):
        try:
            summary = files.read_json(path)
            settings = summary["contract"]["determined_by"]["settings"]
            if summary["status"] == "finished" and not summary["resumed_from"]:
                found[_kind(settings)] = {"settings": settings, "seconds": summary["seconds"]}
        except (UserError, KeyError, TypeError, OSError):
            continue  # of another version, or damaged: the report says so, not this
    return found


def _kind(settings: Mapping[str, Any]) -> str:
    """Return what runs have in common that differ in seed and length alone."""
    recipe = {k: v for k, v in settings["workload"].items() if k not in IRRELEVANT}
    return files.digest({**settings, "workload": recipe, "seed": None})


def _expected(settings: Mapping[str, Any], earlier: Mapping[str, Any]) -> float | None:
    """Return about how many seconds a run takes."""
    known = earlier.get(_kind(settings))
    if known is None:
        return None
    now, then = settings["workload"], known["settings"]["workload"]
    if now["dataset"] != then["dataset"] or now["max_steps"] != then["max_steps"]:
        return None
    factor = 1.0 if now["max_steps"] else now["epochs"] / then["epochs"]
    return sum(
        seconds * (factor if phase in LONG else 1.0)
        for phase, seconds in known["seconds"].items()
        if phase != "data_wait"  # a part of training
    )


def _words(seconds: float) -> str:
    minutes = math.ceil(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def _some(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
