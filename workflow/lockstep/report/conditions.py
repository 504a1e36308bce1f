"""The conditions of a study: what was run, and what threatens the validity of its verdicts.

Both are generated from what was recorded; the threats are what a sceptic would ask first.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from lockstep import __version__
from lockstep.records import parity_verdict
from lockstep.records.load import Record, Records
from lockstep.records.record_validation import FINISHED
from lockstep.records.run_facts import cudnn, each_host
from lockstep.report import dataframes, statistics
from lockstep.report.comparability import phrases
from lockstep.report.sentences import some
from lockstep.report.verdicts import NO_PAIR, NOT_COMPARABLE, Comparison
from lockstep.study.run import Scale
from lockstep.workloads.optimizers import UNUSED

FRAMEWORKS = {"torch": "PyTorch", "jax": "JAX"}
ENGINE = ("torch", "jax", "jaxlib", "flax", "optax", "cuda", "cudnn", "nccl")


def what_was_run(records: Records) -> list[tuple[str, str]]:
    """Return what was run, as terms and their descriptions."""
    config = records.study.config
    runs = [run for run in records.runs if run.summary]
    items = [(f"Task {name}", _task(config, name)) for name in config["workloads"]]
    items += [(f"Variant {name}", _variant(v)) for name, v in config["variants"].items()]
    machines = list(dict.fromkeys(text for run in runs for text in _machines(run)))
    again = f"snakemake --profile profiles/local --configfile results/{config['study']}/study.json"
    items += [
        ("Machine", some(machines, "; ")),
        ("Versions", _versions(runs)),
        ("Scales and seeds", _scales(config)),
        ("When and how long", _when(runs)),
        ("To repeat it", f"{again}, or where its folder is (on a cluster, --profile slurm)"),
    ]
    return [(term, text) for term, text in items if text]


def _task(config: Mapping[str, Any], name: str) -> str:
    recipe = config["workloads"][name]
    optimizer, goal = recipe["optimizer"], recipe["target"]
    numbers = [
        f"{key.replace('_', ' ')} {value:g}"
        for key, value in optimizer.items()
        if value and type(value) in (int, float) and key not in UNUSED[optimizer["name"]]
    ]
    steps = recipe.get("max_steps")
    epochs = f"{recipe['epochs']} epoch{'s' if recipe['epochs'] > 1 else ''}"
    length = f"{steps} steps" if steps else epochs
    return (
        f"Train the model {recipe['workload']} on the dataset {recipe['dataset']} "
        f"({config['datasets'][recipe['dataset']]['source']}) for {length} in batches of "
        f"{recipe['global_batch']} with {str(optimizer['name']).upper()} ({', '.join(numbers)}); "
        f"the target is a test {goal['metric'].replace('_', ' ')} of {goal['value']:g}"
    )


def _variant(settings: Mapping[str, Any]) -> str:
    words = [FRAMEWORKS[settings["framework"]], settings["mode"], settings["precision"]]
    return ", ".join(words + phrases({k: v for k, v in settings.items() if k != "precision"}, {}))


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
    spent = timedelta(seconds=round(total))
    words = [f"All runs together took {spent} (hours:minutes:seconds)"] if total else []
    ended = sorted(str(run.summary["ended"]) for run in runs if run.summary.get("ended"))
    if ended:  # which older records do not say
        first, last = (f"{text[:10]} {text[11:16]}" for text in (ended[0], ended[-1]))
        words.insert(0, f"Runs ended from {first} to {last} UTC")
    return ". ".join(words)


# Threats to validity --------------------------------------------------------------------------

FEW_SEEDS = 5
NOISY = 0.10
DRIFT = 0.03
FEW_WINDOWS = 10

DISTURBED = "Disturbed runs"
TEXT = {
    "CPU only": "No run had a GPU: the ratios say nothing about GPUs.",
    "Unpaired": "{count} of {pairs} pairs did not share a job: what the machine did meanwhile is "
    "part of their ratio. With “blocks: {{paired: true}}” in the config they would.",
    "Several nodes": "Runs were made on {count} nodes; nodes of one kind differ too.",
    "Contention not watched": "{count} of {runs} runs do not say whether other programs used "
    "their CPU cores: {why}.",
    "Disturbed windows": "In {count} of {runs} runs other programs used the CPU cores during "
    "some windows; these windows do not count.",
    DISTURBED: "In {count} of {runs} runs other programs disturbed too many windows: times of "
    "steps and to the target do not count; other times are shown as measured, on a busy machine. "
    "To train again when it is idle, start the study with -R train.",
    "TF32 on CPUs": "{count} of {runs} runs had precision tf32 on a CPU, which computes in float32 "
    "then: nothing here is of TF32.",
    "Target not met": "{count} of {runs} runs did not reach the target: times of steps say nothing "
    "of how long such a model takes to learn.",
    "Begun elsewhere": "{count} of {runs} runs, named in the table of runs, were begun from a "
    "checkpoint of another run: they take part in no verdict and no median.",
    "Lost runs": "{count} of {runs} runs did not finish. Runs are rarely lost at random, and the "
    "verdicts rest on the others.",
    "Few seeds": "n = {count}: the t interval assumes that log ratios are normally distributed, "
    "which so few cannot show; it is wide for that reason.",
    "Noisy step times": "Half of a run's steps spread over {noise:.0%} of their median: something "
    "else ran on this machine, or the node is shared.",
    "Drift": "Times of steps in the last third of a run differ by {shift:+.1%} from those in its "
    "first third (95% interval {low:+.1%} to {high:+.1%}): heat, clocks or memory, not the variant "
    "alone.",
    "Switches of one framework": "In {count} of {runs} runs the environment set {names}, which one "
    "of the frameworks reads and the other does not; no variant declares it.",
    "Compiled in parts": "In {count} of {runs} runs torch.compile cut the step into parts, between "
    "which Python runs (TORCH_LOGS=graph_breaks says where): what it costs is not the compiler's.",
    "Short runs": "{count} timed windows in the shortest run are few.",
    "Resumed runs": "{count} of {runs} runs were interrupted and resumed: import, staging and "
    "compilation are counted once for each start.",
}


COLUMNS = "name | Threat\nwhere | Where\nwhat | What was found"
Threat = Mapping[str, str]
"""Something that could make a verdict wrong: its `name`, `where` it was found, and `what` it is."""


def _threat(name: str, place: str = "the whole study", /, **values: Any) -> Threat:
    return {"name": name, "where": place, "what": TEXT[name].format(**values)}


def threats(
    records: Records, runs: pd.DataFrame, comparisons: Sequence[Comparison]
) -> list[Threat]:
    """Return what threatens the verdicts of a study."""
    return [
        *_study(records, runs, comparisons),
        *_reach(records, comparisons),
        *_sample(comparisons),
        *_variants(runs),
    ]


def _study(
    records: Records, runs: pd.DataFrame, comparisons: Sequence[Comparison]
) -> Iterator[Threat]:
    known = [run for run in records.runs if run.summary]
    contracts = [run.summary["contract"] for run in known]
    nodes = {str(host.get("node")) for c in contracts for host in each_host(c["host"])}
    unwatched = [run.unwatched for run in known if run.unwatched]
    switches = [[name for name in _variables(c) if name.startswith(SWITCHES)] for c in contracts]
    names = parity_verdict.listed(sorted({name for found in switches for name in found}))
    values = {"runs": len(runs), "pairs": sum(len(c.seeds) for c in comparisons), "names": names}
    paired = records.study.config["blocks"]["paired"]
    cpus = [str(c["engine"].get("device", "cpu")) == "cpu" for c in contracts]
    for name, count in {
        "CPU only": cpus and all(cpus),
        "Unpaired": _split(records, comparisons) if paired else values["pairs"],
        "Several nodes": len(nodes) if len(nodes) > 1 else 0,
        "Compiled in parts": sum(bool(c["engine"].get("graph_breaks")) for c in contracts),
        "Switches of one framework": sum(map(bool, switches)),
        "Contention not watched": len(unwatched),
        "Disturbed windows": (runs["disturbed"] > 0).sum(),
        DISTURBED: runs["busy"].notna().sum(),
        "TF32 on CPUs": sum(
            on_cpu and records.study.variant(run.variant)["precision"] == "tf32"
            for run, on_cpu in zip(known, cpus, strict=True)
        ),
        "Target not met": ((runs["status"] == FINISHED) & runs["target_reached"].eq(False)).sum(),
        "Begun elsewhere": (~runs["own"]).sum(),
        "Lost runs": (runs["status"] != FINISHED).sum(),
    }.items():
        if count:
            yield _threat(name, count=count, why=next(iter(unwatched), ""), **values)


SWITCHES = ("JAX_", "XLA_", "TF_XLA", "TORCH", "PYTORCH_")
"""How variables begin that one framework alone reads: set for both, they differ on no side."""


def _variables(contract: Mapping[str, Any]) -> list[str]:
    """Return the variables that were set for a run, but for one that says on which device."""
    known = {
        **contract["engine"].get("settings", {}),
        **contract["topology"].get("environment", {}),
    }
    return [name for name in known if name != "JAX_PLATFORMS"]


def _split(records: Records, comparisons: Sequence[Comparison]) -> int:
    """Return how many pairs did not share a job and a node."""

    def job(c: Comparison, variant: str, seed: int) -> tuple[Any, ...]:
        run = records.by_side[c.workload, variant, c.scale][seed]
        host = run.summary["contract"]["host"]
        return (host.get("job") or {}).get("id"), host.get("node")

    pairs = [(c, seed) for c in comparisons for seed in c.seeds]
    return sum(job(c, c.baseline, seed) != job(c, c.candidate, seed) for c, seed in pairs)


def _reach(records: Records, comparisons: Sequence[Comparison]) -> Iterator[Threat]:
    """What the parity proof does not reach, where there is one."""
    config = records.study.config
    proven = [w for w in config["workloads"] if parity_verdict.compared(records, w)]
    if not proven:
        return
    how = dict.fromkeys(parity_verdict.how_traced(records, w) for w in proven)
    what = f"Parity was {'; or '.join(how)}, not longer."
    scales = [f"scale {s}" for s in config["scales"] if Scale.parse(s).size > 1]
    if scales and any(c.first_step for c in comparisons):
        what += (
            f" For {', '.join(scales)} it rests on the first losses of each pair of runs, which "
            "must agree within what the parity stage found: no gradient was compared there."
        )
    native = [v for v, variant in config["variants"].items() if variant["input"] != "shared"]
    if native:
        what += f" Input of its own, as {', '.join(native)} has, was not compared."
    drawing = [v for v, variant in config["variants"].items() if variant["randomness"] != "shared"]
    if drawing:
        what += f" Random numbers of its own, as {', '.join(drawing)} has, were not compared."
    yield {"name": "Reach of the parity proof", "where": ", ".join(proven), "what": what}


def _sample(comparisons: Sequence[Comparison]) -> Iterator[Threat]:
    places: dict[str, int] = {}
    for c in comparisons:
        if c.step_time and c.kind not in (NOT_COMPARABLE, NO_PAIR):
            where = f"{c.workload} at {c.scale}"
            places[where] = min(c.step_time.n, places.get(where, FEW_SEEDS))
    for where, fewest in places.items():
        if fewest < FEW_SEEDS:
            yield _threat("Few seeds", where, count=fewest)


def _variants(runs: pd.DataFrame) -> Iterator[Threat]:
    """Noise, drift, brevity and starts, by workload, scale and variant."""
    for (scale, variant, workload), group in dataframes.by_variant(
        dataframes.finished(runs), "workload"
    ):
        where = f"{workload} at {scale}, {variant}"
        if (noise := float(group["noise"].median())) > NOISY:
            yield _threat("Noisy step times", where, noise=noise)
        logs = np.log1p(group["drift"].dropna().to_numpy(dtype=float))
        mean = statistics.Mean.of(logs) if len(logs) > 1 else None
        if mean and abs(mean.value) > DRIFT and mean.p() < 1 - statistics.LEVEL:
            shift, below, above = map(float, np.expm1([mean.value, *mean.interval()]))
            yield _threat("Drift", where, shift=shift, low=below, high=above)
        if (windows := int((group["windows"] + group["disturbed"]).min())) < FEW_WINDOWS:
            yield _threat("Short runs", where, count=windows)
        if resumed := int((group["attempts"] > 1).sum()):
            yield _threat("Resumed runs", where, count=resumed, runs=len(group))
