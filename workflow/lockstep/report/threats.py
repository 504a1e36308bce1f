"""Threats to validity, generated from what was measured: what a sceptic would ask first."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lockstep.report import frames, proof, statistics
from lockstep.report.contract import Difference
from lockstep.report.load import Records
from lockstep.report.verdicts import NO_PAIR, NOT_COMPARABLE, Comparison, difference_text
from lockstep.study.run import Scale

FEW_SEEDS = 5
NOISY = 0.10
DRIFT = 0.03
FEW_WINDOWS = 10


@dataclass(frozen=True, kw_only=True)
class Threat:
    """Something that could make a verdict wrong.

    Attributes:
        name: of the kind.
        where: workload and scale, or the whole study.
        what: what was measured, and what to make of it.
    """

    name: str
    where: str
    what: str


def find(records: Records, runs: pd.DataFrame, comparisons: Sequence[Comparison]) -> list[Threat]:
    """Return what threatens the verdicts of a study."""
    return [
        *_study(records, runs, comparisons),
        *_sample(comparisons),
        *_flagged(comparisons),
        *_steps(runs),
        *_starts(runs),
    ]


def _study(
    records: Records, runs: pd.DataFrame, comparisons: Sequence[Comparison]
) -> Iterator[Threat]:
    with_summary = [run for run in records.runs if run.summary]
    everywhere = "the whole study"
    if with_summary and all(_device(run.summary) == "cpu" for run in with_summary):
        yield Threat(
            name="CPU only",
            where=everywhere,
            what="No run had a GPU: the ratios say nothing about GPUs.",
        )
    split = _split_pairs(records, comparisons)
    if split:
        yield Threat(
            name="Unpaired",
            where=everywhere,
            what=(
                f"{split[0]} of {split[1]} pairs did not share a job: what the machine did "
                "meanwhile is part of their ratio. With “blocks: {paired: true}” in the config all "
                "variants of a seed share one."
            ),
        )
    machines = {name for run in with_summary for name in _nodes(run.summary)}
    if len(machines) > 1:
        yield Threat(
            name="Several nodes",
            where=everywhere,
            what=f"Runs were made on {len(machines)} nodes; nodes of one kind differ too.",
        )
    foreign = int((~runs["own"]).sum())
    if foreign:
        yield Threat(
            name="Begun elsewhere",
            where=everywhere,
            what=(
                f"{foreign} of {len(runs)} runs were begun from a checkpoint of another run: they "
                "take part in no verdict and no median. The table of runs names them."
            ),
        )
    lost = runs[~runs["finished"]]
    if len(lost):
        yield Threat(
            name="Lost runs",
            where=everywhere,
            what=(
                f"{len(lost)} of {len(runs)} runs did not finish. Runs are rarely lost at random, "
                "and the verdicts rest on the others."
            ),
        )
    family = max((c.family for c in comparisons), default=1)
    if family > 1:
        yield Threat(
            name="Several comparisons",
            where=everywhere,
            what=(
                f"{family} comparisons of step time share one error rate of 5% (Holm); the "
                "intervals are 95% each, without correction."
            ),
        )
    yield from _reach(records, comparisons)


def _reach(records: Records, comparisons: Sequence[Comparison]) -> Iterator[Threat]:
    """What the parity proof does not reach, where there is one."""
    proven = [w for w in records.study.config["workloads"] if proof.compared(records, w)]
    if not proven:
        return
    config = records.study.config
    parity, seed = config["parity"], config["seeds"][0]
    places = dict.fromkeys(proof.processes(records, w) for w in proven)
    what = (
        f"Parity was traced with the weights of seed {seed} {' or '.join(places)}, over "
        f"{parity['steps']} steps in float64 and {parity['float32_steps']} in float32, not longer."
    )
    scales = [scale for scale in config["scales"] if Scale.parse(scale).size > 1]
    if scales and any(c.first_step for c in comparisons):
        named = ", ".join(f"scale {scale}" for scale in scales)
        what += (
            f" For {named} it rests on the first losses of each pair of runs, which must agree "
            "within what the parity stage found: no gradient was compared there."
        )
    native = [v for v, variant in config["variants"].items() if variant["input"] != "shared"]
    if native:
        what += f" Input of its own, as {', '.join(native)} has, was not compared."
    yield Threat(name="Reach of the parity proof", where=", ".join(proven), what=what)


def _nodes(summary: Any) -> list[str]:
    host = summary["contract"]["host"]
    return [str(node.get("node")) for node in host.get("nodes") or [host]]


def _device(summary: Any) -> str:
    return str(summary["contract"]["engine"].get("device", "cpu"))


def _split_pairs(records: Records, comparisons: Sequence[Comparison]) -> tuple[int, int] | None:
    """Return how many pairs did not share a job, and of how many; None if all did."""
    if records.study.config["blocks"]["paired"]:
        jobs = {run.key: _job(run.summary) for run in records.runs if run.summary}
        pairs = [
            (
                jobs[c.workload, c.baseline, c.scale, seed],
                jobs[c.workload, c.candidate, c.scale, seed],
            )
            for c in comparisons
            for seed in c.seeds
        ]
        split = sum(a != b for a, b in pairs)
        return (split, len(pairs)) if split else None
    total = sum(len(c.seeds) for c in comparisons)
    return (total, total) if total else None


def _job(summary: Any) -> tuple[Any, Any]:
    host = summary["contract"]["host"]
    return (host.get("job") or {}).get("id"), host.get("node")


def _sample(comparisons: Sequence[Comparison]) -> Iterator[Threat]:
    places: dict[tuple[str, str], list[Comparison]] = {}
    for c in comparisons:
        if c.kind not in (NOT_COMPARABLE, NO_PAIR):
            places.setdefault((c.workload, c.scale), []).append(c)
    for (workload, scale), group in places.items():
        fewest = min(c.step_time.n for c in group if c.step_time)
        if fewest < FEW_SEEDS:
            yield Threat(
                name="Few seeds",
                where=f"{workload} at {scale}",
                what=(
                    f"{fewest} pair{'s' if fewest > 1 else ''}: the t interval assumes that log "
                    "ratios are normally distributed, which so few cannot show; it is wide for "
                    "that reason."
                ),
            )


def _flagged(comparisons: Sequence[Comparison]) -> Iterator[Threat]:
    """What no variant declares and stands beside verdicts: a threat a fact."""
    found: dict[str, list[tuple[Comparison, Difference]]] = {}
    for c in comparisons:
        for d in c.flags:
            found.setdefault(d.fact, []).append((c, d))
    for touched in found.values():
        (c, difference), *others = touched
        places = dict.fromkeys(f"{c.workload} at {c.scale}" for c, _ in touched)
        more = f" The same fact differs in {len(others)} more comparisons." if others else ""
        yield Threat(
            name=f"Undeclared {difference.label}",
            where=", ".join([*places][:3])
            + (f" and {len(places) - 3} more" if len(places) > 3 else ""),
            what=f"{c.candidate} and {c.baseline}: {difference_text(difference)}.{more}",
        )


def _steps(runs: pd.DataFrame) -> Iterator[Threat]:
    """Noise, drift and brevity, by workload, scale and variant."""
    for (workload, scale, variant), group in _grouped(runs):
        where = f"{workload} at {scale}, {variant}"
        noise = float(group["noise"].median())
        if noise > NOISY:
            yield Threat(
                name="Noisy step times",
                where=where,
                what=(
                    f"Half of a run's steps spread over {noise:.0%} of their median: something "
                    "else ran on this machine, or the node is shared."
                ),
            )
        drift = group["drift"].dropna().to_numpy(dtype=float)
        if len(drift) > 1:
            mean, low, high = statistics.mean_interval(np.log1p(drift))
            if abs(mean) > DRIFT and low is not None and high is not None and not low <= 0 <= high:
                shift = float(np.expm1(mean))
                yield Threat(
                    name="Drift",
                    where=where,
                    what=(
                        f"Steps of the last third of a run take {abs(shift):.1%} "
                        f"{'longer' if shift > 0 else 'less time'} than those of the first third "
                        f"(difference {shift:+.1%}, 95% interval {np.expm1(low):+.1%} to "
                        f"{np.expm1(high):+.1%}): heat, clocks or memory, not the variant alone."
                    ),
                )
        if int(group["windows"].min()) < FEW_WINDOWS:
            yield Threat(
                name="Short runs",
                where=where,
                what=f"{int(group['windows'].min())} steady windows in the shortest run are few.",
            )


def _starts(runs: pd.DataFrame) -> Iterator[Threat]:
    for (workload, scale, variant), group in _grouped(runs):
        where = f"{workload} at {scale}, {variant}"
        resumed = int((group["attempts"] > 1).sum())
        if resumed:
            yield Threat(
                name="Resumed runs",
                where=where,
                what=(
                    f"{resumed} of {len(group)} runs were interrupted and resumed: import, "
                    "staging and compilation are counted once for each start."
                ),
            )
        caches = group["cache"].value_counts()
        if len(caches) > 1:
            counts = ", ".join(f"{count} {name}" for name, count in caches.items())
            yield Threat(
                name="Mixed caches",
                where=where,
                what=f"Compilation found different caches ({counts}); step times are not touched.",
            )


def _grouped(runs: pd.DataFrame) -> Any:
    return frames.finished(runs).groupby(["workload", "scale", "variant"], sort=False)
