"""Losses of a run's steps, from ``steps.npz``, and how far those of two variants are apart.

Rounding makes two correct programs drift apart. How far says nothing by itself. It is read against
the *twin*: the reference trained again from weights that differ in their last bits. Two variants of
one framework share its kernels and are closer than another library can be.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lockstep.datasets import checksum
from lockstep.report.record_validation import FINISHED, Unsound

if TYPE_CHECKING:
    from lockstep.report.load import Records


def losses(folder: Path, summary: Mapping[str, Any], sha256: str | None = None) -> np.ndarray:
    """Return the loss of every step of a run, ``(steps,)``.

    Args:
        sha256: of the file, if its block's manifest says it.

    Raises:
        Unsound: the file is not readable, or contradicts the run's summary or the manifest.
    """
    path = folder / "steps.npz"
    try:
        with np.load(path) as stored:
            loss, sums = stored["loss"], stored["checksum"]
    except Exception as error:  # a damaged archive raises almost anything
        raise Unsound(f"not readable ({error})") from error
    if loss.dtype.kind != "f" or sums.dtype.kind != "u":
        raise Unsound(f"holds no numbers of steps (loss is {loss.dtype}, checksum {sums.dtype})")
    if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise Unsound("was changed after its block was finished (sha256 differs)")
    if loss.shape != (summary["steps"],):
        raise Unsound(f"holds {loss.size} of {summary['steps']} steps")
    if checksum.chain(sums) != summary["batches"]:
        raise Unsound("contradictory: its batches are not those of the summary")
    return loss


# Between variants ------------------------------------------------------------------------------

POINTS = 80
SEEDS = 5
CURVES = 4
"""Pairs of each kind that are drawn, and seeds that a curve is the median of."""

Curve = tuple[str, str, np.ndarray, np.ndarray]


def curves(records: "Records", workload: str) -> list[Curve]:
    """Return the curves of a workload at the study's first scale.

    Returns:
        Label, kind (`between`, `twin`, `within` or `seeds`), steps ``(points,)`` and relative
        difference ``(points,)`` of each curve; a run whose steps cannot be used is in none.
    """
    scale = records.study.config["scales"][0]
    found: dict[str, dict[int, np.ndarray]] = {}
    for run in records.runs:
        if (run.workload, run.scale, run.status) != (workload, scale, FINISHED):
            continue
        by_seed = found.setdefault(run.variant, {})
        if len(by_seed) < SEEDS and run.steps_problem is None:
            by_seed[run.seed] = losses(records.study.root / run.folder, run.summary)
    return [*_curves(records, found), *_twin(records, workload)]


TWIN = 10.0
"""The tolerance of float32 steps is this many times the difference of the twin."""


def _twin(records: "Records", workload: str) -> Iterator[Curve]:
    """Yield the twin's difference in float32, from the parity verdict: the largest of a step."""
    verdict = records.parity.get(workload) or {"comparisons": {}}
    found = [c["curves"].get("float32_tolerance") for c in verdict["comparisons"].values()]
    known = [np.array(curve, dtype=float) / TWIN for curve in found if curve]
    if known:
        length = min(map(len, known))
        values = np.max([curve[:length] for curve in known], axis=0)
        yield "the twin of the reference", "twin", np.arange(1, length + 1), values


def limits(records: "Records") -> str:
    """Return what of the study no curve shows, in sentences; empty if nothing."""
    first, *others = records.study.config["scales"]
    sentences = [f"Scale {first} alone; the tables have all scales."] if others else []
    kinds = Counter(kind for _, _, kind in _pairs(records, records.study.config["variants"]))
    words = {"between": "between frameworks", "within": "within one"}
    sentences += [
        f"Drawn are {CURVES} of the {count} pairs {words[kind]}."
        for kind, count in kinds.items()
        if count > CURVES
    ]
    return " ".join(sentences)


def _pairs(records: "Records", variants: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Yield variants that can be compared step by step, and of which kind their curve is."""
    for first, second in itertools.combinations(variants, 2):
        a, b = records.study.variant(first), records.study.variant(second)
        if a["precision"] == b["precision"] and "native" not in (a["input"], b["input"]):
            yield first, second, "within" if a["framework"] == b["framework"] else "between"


def _curves(records: "Records", found: Mapping[str, Mapping[int, np.ndarray]]) -> Iterator[Curve]:
    counts: Counter[str] = Counter()
    for first, second, kind in _pairs(records, found):
        shared = sorted(found[first].keys() & found[second].keys())
        if shared and counts[kind] < CURVES:
            counts[kind] += 1
            pairs = [(found[first][seed], found[second][seed]) for seed in shared]
            yield (f"{second} and {first}", kind, *_difference(pairs))
    for variant, by_seed in found.items():
        pairs = list(itertools.pairwise(by_seed.values()))
        if pairs:
            yield (variant, "seeds", *_difference(pairs))
            return


def _difference(pairs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and the median over pairs of ``|a - b| / |b|``, in at most `POINTS` bins.

    A bin holds the mean of its steps: a median would jump to 0 wherever most are equal to the bit.
    """
    length = min(min(len(a), len(b)) for a, b in pairs)
    relative = [
        np.abs(a[:length] - b[:length]) / np.maximum(np.abs(b[:length]), 1e-12) for a, b in pairs
    ]
    median = np.median(relative, axis=0)
    edges = np.unique(np.linspace(0, length, POINTS + 1).astype(int))
    middle = (edges[:-1] + edges[1:] - 1) / 2 + 1
    return middle, np.array([median[a:b].mean() for a, b in itertools.pairwise(edges)])
