"""What was run: task, machine, versions, settings, when, and the command that repeats it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lockstep import __version__
from lockstep.records.load import Record, Records
from lockstep.records.run_facts import cudnn, each_host
from lockstep.report.comparability import PLAIN, phrases
from lockstep.report.tables import number
from lockstep.workloads.optimizers import UNUSED

FRAMEWORKS = {"torch": "PyTorch", "jax": "JAX"}
ENGINE = ("torch", "jax", "jaxlib", "flax", "optax", "cuda", "cudnn", "nccl")


def describe(records: Records) -> list[tuple[str, str]]:
    """Return what was run, as terms and their descriptions."""
    config = records.study.config
    runs = [run for run in records.runs if run.summary]
    items = [(f"Task {name}", _task(config, name)) for name in config["workloads"]]
    items += [(f"Variant {name}", _variant(v)) for name, v in config["variants"].items()]
    items += [
        ("Machine", _distinct(text for run in runs for text in _machines(run))),
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
    optimizer, goal = recipe["optimizer"], recipe["target"]
    numbers = [
        f"{key.replace('_', ' ')} {value:g}"
        for key, value in optimizer.items()
        if value and type(value) in (int, float) and key not in UNUSED[optimizer["name"]]
    ]
    steps = recipe.get("max_steps")
    length = f"{steps} steps" if steps else f"{recipe['epochs']} epochs"
    return (
        f"Train the model {recipe['workload']} on the dataset {recipe['dataset']} "
        f"({config['datasets'][recipe['dataset']]['source']}) for {length} in batches of "
        f"{recipe['global_batch']} with {str(optimizer['name']).upper()} ({', '.join(numbers)}); "
        f"the target is a test {goal['metric'].replace('_', ' ')} of {goal['value']:g}"
    )


def _variant(settings: Mapping[str, Any]) -> str:
    words = [FRAMEWORKS[settings["framework"]], settings["mode"], settings["precision"]]
    return ", ".join(words + phrases({**settings, "precision": PLAIN["precision"]}, {}))


def _machines(run: Record) -> Iterable[str]:
    """Yield what a run's nodes are."""
    contract = run.summary["contract"]
    threads = contract["topology"].get("threads")
    for node in each_host(contract["host"]):
        host = {**contract["host"], **node}
        gpus = Counter(str(gpu.get("name")) for gpu in host.get("gpus") or [])
        drivers = ", ".join(sorted({str(gpu.get("driver")) for gpu in host.get("gpus") or []}))
        counts = ", ".join(f"{count} × {name}" for name, count in sorted(gpus.items()))
        parts = [
            host.get("cpu"),
            host.get("cores") and f"{host['cores']} cores",
            threads and f"{threads} threads used",
            f"{counts} (driver {drivers})" if counts else "no GPU",
            host.get("system"),
        ]
        yield ", ".join(str(part) for part in parts if part)


def _versions(runs: Iterable[Record]) -> str:
    found: dict[str, dict[str, None]] = {}
    for contract in (run.summary["contract"] for run in runs):
        known = {"Python": contract["host"].get("python")}
        known |= contract["determined_by"].get("environment") or {}
        known |= {name: contract["engine"].get(name) for name in ENGINE}
        known |= {"cudnn": cudnn(known["cudnn"]), "image": None}
        for name, version in known.items():
            if version is not None:
                found.setdefault(name, {})[str(version)] = None
    listed = [f"{name} {' and '.join(values)}" for name, values in found.items()]
    return ", ".join([f"Lockstep {__version__}", *listed])


def _scales(config: Mapping[str, Any]) -> str:
    seeds = config["seeds"]
    shown = ", ".join(map(str, seeds)) if len(seeds) <= 10 else f"{len(seeds)} of them"
    paired = config["blocks"]["paired"]
    jobs = "in one job per seed, in random order" if paired else "in jobs of their own"
    return (
        f"{', '.join(config['scales'])} (nodes × devices per node); seeds {shown}; all variants "
        f"{jobs}; clocks are read every {config['window_steps']} steps"
    )


def _when(runs: Sequence[Record]) -> str:
    total = sum(run.whole_seconds for run in runs)
    words = [f"All runs together took {_duration(total)}"] if total else []
    ended = sorted(str(run.summary["ended"]) for run in runs if run.summary.get("ended"))
    if ended:  # which older records do not say
        first, last = (f"{text[:10]} {text[11:16]}" for text in (ended[0], ended[-1]))
        words.insert(0, f"Runs ended from {first} to {last} UTC")
    return ". ".join(words)


def _duration(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{number(seconds / length)} {unit}"
    return f"{number(seconds)} seconds"
