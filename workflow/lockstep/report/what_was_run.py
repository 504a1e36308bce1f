"""What was run: task, machine, versions, settings, when, and the command that repeats it."""

import datetime
from collections.abc import Iterable, Mapping
from typing import Any

from lockstep import __version__
from lockstep.report.comparability import PLAIN, phrases
from lockstep.report.load import Record, Records
from lockstep.report.run_facts import cudnn
from lockstep.report.tables import number
from lockstep.workloads.optimizers import UNUSED

FRAMEWORKS = {"torch": "PyTorch", "jax": "JAX"}
ENGINE = ("torch", "jax", "jaxlib", "flax", "optax", "cuda", "cudnn", "nccl")


def describe(records: Records) -> list[tuple[str, str]]:
    """Return what was run, as terms and their descriptions, of the study's own runs."""
    config = records.study.config
    runs = [run for run in records.runs if run.summary]
    hosts = [node for run in runs for node in _nodes(run)]
    items = [(f"Task {name}", _task(config, name)) for name in config["workloads"]]
    items += [(f"Variant {name}", _variant(v)) for name, v in config["variants"].items()]
    items += [
        ("Machine", _distinct(_machine(host) for host in hosts)),
        ("Versions", _versions(runs)),
        ("Scales and seeds", _scales(config)),
        ("When and how long", _when(runs)),
        (
            "To repeat it",
            f"snakemake --profile profiles/local --configfile results/{records.study.name}/"
            "study.json (on a cluster, --profile slurm)",
        ),
    ]
    return [(term, text) for term, text in items if text]


def _distinct(texts: Iterable[str]) -> str:
    known = list(dict.fromkeys(text for text in texts if text))
    return "; ".join(known[:4]) + (f"; and {len(known) - 4} others" if len(known) > 4 else "")


def _task(config: Mapping[str, Any], name: str) -> str:
    recipe = config["workloads"][name]
    optimizer = recipe["optimizer"]
    numbers = [
        f"{key.replace('_', ' ')} {value:g}"
        for key, value in optimizer.items()
        if isinstance(value, (int, float))
        and not isinstance(value, bool)
        and value
        and key not in UNUSED[optimizer["name"]]
    ]
    length = f"{recipe['epochs']} epochs"
    if recipe.get("max_steps"):
        length = f"{recipe['max_steps']} steps"
    goal = recipe["target"]
    return (
        f"Train the model {recipe['workload']} on the dataset {recipe['dataset']} "
        f"({config['datasets'][recipe['dataset']]['source']}) for {length} in batches of "
        f"{recipe['global_batch']} with {str(optimizer['name']).upper()} ({', '.join(numbers)}); "
        f"the target is a test {goal['metric'].replace('_', ' ')} of {goal['value']:g}"
    )


def _variant(settings: Mapping[str, Any]) -> str:
    framework = FRAMEWORKS.get(settings["framework"], settings["framework"])
    words = [f"{framework}, {settings['mode']}", f"{settings['precision']}"]
    words += [text for text in phrases({**settings, "precision": PLAIN["precision"]}, {})]
    return ", ".join(words)


def _nodes(run: Record) -> list[Mapping[str, Any]]:
    host = run.summary["contract"]["host"]
    threads = run.summary["contract"]["topology"].get("threads")
    nodes = host.get("nodes") or [host]
    return [{**host, **node, "threads": threads} for node in nodes]


def _machine(host: Mapping[str, Any]) -> str:
    gpus = [str(gpu.get("name")) for gpu in host.get("gpus") or []]
    drivers = sorted({str(gpu.get("driver")) for gpu in host.get("gpus") or []})
    counts = [f"{gpus.count(name)} × {name}" for name in sorted(set(gpus))]
    parts = [
        str(host.get("cpu") or ""),
        f"{host['cores']} cores" if host.get("cores") else "",
        f"{host['threads']} threads used" if host.get("threads") else "",
        ", ".join(counts) + (f" (driver {', '.join(drivers)})" if counts else "") or "no GPU",
        str(host.get("system") or ""),
    ]
    return ", ".join(part for part in parts if part)


def _versions(runs: Iterable[Record]) -> str:
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        contract = run.summary["contract"]
        packages = contract["determined_by"].get("environment") or {}
        known = {"Python": contract["host"].get("python"), **packages}
        known |= {name: contract["engine"].get(name) for name in ENGINE}
        known["cudnn"] = cudnn(known["cudnn"])
        known.pop("image", None)
        for name, version in known.items():
            if version is not None:
                found.setdefault(name, {})[str(version)] = None
    listed = ", ".join(f"{name} {' and '.join(values)}" for name, values in found.items())
    return f"Lockstep {__version__}" + (f", {listed}" if listed else "")


def _scales(config: Mapping[str, Any]) -> str:
    seeds = config["seeds"]
    shown = ", ".join(map(str, seeds)) if len(seeds) <= 10 else f"{len(seeds)} of them"
    paired = " in one job per seed, in random order" if config["blocks"]["paired"] else ""
    return (
        f"{', '.join(config['scales'])} (nodes × devices per node); seeds {shown}; all variants"
        f"{paired or ' in jobs of their own'}; clocks are read every {config['window_steps']} steps"
    )


def _when(runs: Iterable[Record]) -> str:
    ends, total = [], 0.0
    for run in runs:
        total += run.whole_seconds
        try:
            ends.append(datetime.datetime.fromisoformat(str(run.summary.get("ended"))))
        except ValueError:
            continue  # records without it are read as well
    words = [f"All runs together took {_duration(total)}"] if total else []
    if ends and len({end.tzinfo is None for end in ends}) == 1:
        first, last = (f"{end:%Y-%m-%d %H:%M}" for end in (min(ends), max(ends)))
        words.insert(0, f"Runs ended from {first} to {last} UTC")
    return ". ".join(words)


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 2:
        return f"{number(hours)} hours"
    return f"{number(minutes)} minutes" if minutes >= 2 else f"{number(seconds)} seconds"
