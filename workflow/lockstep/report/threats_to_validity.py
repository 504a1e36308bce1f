"""Threats to validity, generated from what was measured: what a sceptic would ask first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lockstep.records import parity_verdict
from lockstep.records.load import Records
from lockstep.records.run_facts import each_host
from lockstep.report import dataframes, statistics
from lockstep.report.verdicts import NO_PAIR, NOT_COMPARABLE, Comparison
from lockstep.study.run import Scale

FEW_SEEDS = 5
NOISY = 0.10
DRIFT = 0.03
FEW_WINDOWS = 10

EVERYWHERE = "the whole study"

TEXT = {
    "CPU only": "No run had a GPU: the ratios say nothing about GPUs.",
    "Unpaired": "{count} of {pairs} pairs did not share a job: what the machine did meanwhile is "
    "part of their ratio. With “blocks: {{paired: true}}” in the config all variants of a seed "
    "share one.",
    "Several nodes": "Runs were made on {count} nodes; nodes of one kind differ too.",
    "Contention not watched": "{count} of {runs} runs do not say whether other programs used "
    "their CPU cores: {why}.",
    "Disturbed windows": "In {count} of {runs} runs other programs used the CPU cores during "
    "some windows; these windows do not count.",
    "Begun elsewhere": "{count} of {runs} runs were begun from a checkpoint of another run: they "
    "take part in no verdict and no median. The table of runs names them.",
    "Lost runs": "{count} of {runs} runs did not finish. Runs are rarely lost at random, and the "
    "verdicts rest on the others.",
    "Few seeds": "n = {count}: the t interval assumes that log ratios are normally distributed, "
    "which so few cannot show; it is wide for that reason.",
    "Noisy step times": "Half of a run's steps spread over {noise:.0%} of their median: something "
    "else ran on this machine, or the node is shared.",
    "Drift": "Steps of the last third of a run take {size:.1%} {direction} than those of the first "
    "third (difference {shift:+.1%}, 95% interval {low:+.1%} to {high:+.1%}): heat, clocks or "
    "memory, not the variant alone.",
    "Short runs": "{count} timed windows in the shortest run are few.",
    "Resumed runs": "{count} of {runs} runs were interrupted and resumed: import, staging and "
    "compilation are counted once for each start.",
}


@dataclass(frozen=True, kw_only=True)
class Threat:
    """Something that could make a verdict wrong."""

    name: str  # of the kind
    where: str  # workload and scale, or the whole study
    what: str  # what was measured, and what to make of it


def _threat(name: str, place: str = EVERYWHERE, /, **values: Any) -> Threat:
    return Threat(name=name, where=place, what=TEXT[name].format(**values))


def find(records: Records, runs: pd.DataFrame, comparisons: Sequence[Comparison]) -> list[Threat]:
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
    values = {"runs": len(runs), "pairs": sum(len(c.seeds) for c in comparisons)}
    paired = records.study.config["blocks"]["paired"]
    cpus = [str(c["engine"].get("device", "cpu")) == "cpu" for c in contracts]
    for name, count in {
        "CPU only": cpus and all(cpus),
        "Unpaired": _split(records, comparisons) if paired else values["pairs"],
        "Several nodes": len(nodes) if len(nodes) > 1 else 0,
        "Contention not watched": len(unwatched),
        "Disturbed windows": (runs["disturbed"] > 0).sum(),
        "Begun elsewhere": (~runs["own"]).sum(),
        "Lost runs": (~runs["finished"]).sum(),
    }.items():
        if count:
            yield _threat(name, count=count, why=next(iter(unwatched), ""), **values)


def _split(records: Records, comparisons: Sequence[Comparison]) -> int:
    """Return how many pairs did not share a job and a node."""
    hosts = {run.key: run.summary["contract"]["host"] for run in records.runs if run.summary}
    jobs = {
        key: ((host.get("job") or {}).get("id"), host.get("node")) for key, host in hosts.items()
    }
    return sum(
        jobs[c.workload, c.baseline, c.scale, seed] != jobs[c.workload, c.candidate, c.scale, seed]
        for c in comparisons
        for seed in c.seeds
    )


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
    yield Threat(name="Reach of the parity proof", where=", ".join(proven), what=what)


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
            way = "longer" if shift > 0 else "less time"
            values = {"size": abs(shift), "shift": shift, "low": below, "high": above}
            yield _threat("Drift", where, direction=way, **values)
        if (windows := int((group["windows"] + group["disturbed"]).min())) < FEW_WINDOWS:
            yield _threat("Short runs", where, count=windows)
        if resumed := int((group["attempts"] > 1).sum()):
            yield _threat("Resumed runs", where, count=resumed, runs=len(group))
