"""How far the losses of two variants' steps differ along a run, from ``steps.npz``.

Rounding makes two correct programs drift apart. How far says nothing by itself. It is read against
the *twin*: the reference trained again from weights that differ in their last bits. Two variants of
one framework share its kernels and are closer than another library can be.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lockstep.report import parity_verdict
from lockstep.report.load import Records, step_losses
from lockstep.report.record_validation import FINISHED
from lockstep.study import Study

POINTS = 80
SEEDS = 5
CURVES = 4
"""Pairs of each kind that are drawn, and seeds that a curve is the median of."""

TWIN = 10.0
"""The tolerance of float32 steps is this many times the difference of the twin."""

Curve = tuple[str, str, np.ndarray, np.ndarray]


def curves(records: Records, workload: str) -> Iterator[Curve]:
    """Yield the curves of a workload at the study's first scale.

    Yields:
        Label, kind (`between`, `twin`, `within` or `seeds`), steps ``(points,)`` and relative
        difference ``(points,)`` of each curve; a run whose steps cannot be used is in none.
    """
    scale = records.study.config["scales"][0]
    found: dict[str, dict[int, np.ndarray]] = {
        name: {} for name in records.study.config["variants"]
    }
    for run in records.runs:
        here = (run.workload, run.scale, run.status) == (workload, scale, FINISHED)
        if here and run.steps_problem is None and len(found[run.variant]) < SEEDS:
            losses = step_losses(records.study.root / run.folder, run.summary)
            found[run.variant][run.seed] = losses
    for kind, pairs in _pairs(records.study).items():
        for first, second in pairs[:CURVES]:
            a, b = found[first], found[second]
            shared = [(a[seed], b[seed]) for seed in sorted(a.keys() & b.keys())]
            if shared:
                yield f"{second} and {first}", kind, *_difference(shared)
    for variant, by_seed in found.items():
        if len(by_seed) > 1:
            yield variant, "seeds", *_difference(list(itertools.pairwise(by_seed.values())))
            break
    tolerance = parity_verdict.curves(records, workload).get("float32_tolerance")
    if tolerance is not None:
        steps = np.arange(1, len(tolerance) + 1)
        yield "the twin of the reference", "twin", steps, tolerance / TWIN


def limits(study: Study) -> str:
    """Return what of a study no curve shows, in sentences; empty if nothing."""
    first, *others = study.config["scales"]
    sentences = [f"Scale {first} alone; the tables have all scales."] if others else []
    words = {"between": "between frameworks", "within": "within one"}
    sentences += [
        f"Drawn are {CURVES} of the {len(pairs)} pairs {words[kind]}."
        for kind, pairs in _pairs(study).items()
        if len(pairs) > CURVES
    ]
    return " ".join(sentences)


def _pairs(study: Study) -> Mapping[str, Sequence[tuple[str, str]]]:
    """Return variants that can be compared step by step, by the kind of their curve."""
    found: dict[str, list[tuple[str, str]]] = {}
    for first, second in itertools.combinations(study.config["variants"], 2):
        a, b = study.variant(first), study.variant(second)
        if a["precision"] == b["precision"] and "native" not in (a["input"], b["input"]):
            kind = "within" if a["framework"] == b["framework"] else "between"
            found.setdefault(kind, []).append((first, second))
    return found


def _difference(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and the median over pairs of ``|a - b| / |b|``, in at most `POINTS` bins.

    A bin holds the mean of its steps: a median would jump to 0 wherever most are equal to the bit.
    """
    length = min(min(len(a), len(b)) for a, b in pairs)
    relative = [
        np.abs(a[:length] - b[:length]) / np.maximum(np.abs(b[:length]), 1e-12) for a, b in pairs
    ]
    edges = np.unique(np.linspace(0, length, POINTS + 1).astype(int))
    means = np.add.reduceat(np.median(relative, axis=0), edges[:-1]) / np.diff(edges)
    return (edges[:-1] + edges[1:] - 1) / 2 + 1, means
