"""Figures of what is learned: parity, losses and metrics, and how much losses differ.

Rounding makes two correct programs drift apart. How far says nothing by itself. It is read against
the *twin*: the reference trained again from weights that differ in their last bits. Two variants of
one framework share its kernels and are closer than another library can be.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from lockstep.records import parity_verdict
from lockstep.records.load import Records, step_losses
from lockstep.records.record_validation import FINISHED
from lockstep.report.drawing import SIZE, WIDE, Look, Looks, finish, new, panel, power_of_ten, ticks
from lockstep.report.picture import INK, PALETTE, Picture
from lockstep.study import Study

LOSS_TICKS = [m * 10.0**e for e in range(-6, 3) for m in (1, 2, 5)]
EQUAL = {"float64": 1e-17, "float32": 1e-9}
"""Where a step that is equal to the bit is drawn."""


def parity_curves(records: Records, workload: str, styles: Looks) -> Picture | None:
    """Draw each step's difference from the reference, with the tolerance that it must stay in."""
    verdict = records.parity.get(workload)
    if not verdict or not verdict["comparisons"]:
        return None
    figure, axes = new(WIDE, ncols=2)
    words = []
    for (precision, floor), ax in zip(EQUAL.items(), axes, strict=True):
        for variant, comparison in verdict["comparisons"].items():
            values = comparison["curves"].get(precision)
            if values is not None:
                look = styles.get(variant) or Look(colour=PALETTE["other"], line="-", marker="o")
                steps, shown = np.arange(1, len(values) + 1), np.maximum(values, floor)
                mark = look.points(fillstyle="none", markersize=4, label=variant)
                ax.plot(steps, shown, **mark)
                words.append(f"{variant} in {precision} at most {max(values):.1e}")
        line = {"color": INK, "linewidth": 1, "linestyle": "--", "label": "tolerance"}
        limit = parity_verdict.curves(records, workload).get(f"{precision}_tolerance")
        if precision == "float64":
            ax.axhline(_tolerance(verdict), **line)
        elif limit is not None:
            ax.plot(np.arange(1, len(limit) + 1), limit, **line)
        label = "Relative difference of the loss"
        panel(ax, xlabel=f"Step, in {precision}", ylabel=label, yscale="log")
        ax.set_ylim(floor / 2, None)
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6, integer=True))
        decades = [t for t in ax.get_yticks() if floor < t < ax.get_ylim()[1]]
        ticks(ax.yaxis, [floor, *decades], ["equal", *map(power_of_ten, decades)])
    title = f"Difference of every step's loss from {verdict['reference']}"
    return finish(figure, f"{workload}-parity", title, words or ["no curve is finite"])


def _tolerance(verdict: Mapping[str, Any]) -> float:
    """Return the tolerance of the steps in float64; NaN if the verdict does not say."""
    rungs = (rung for c in verdict["comparisons"].values() for rung in c["rungs"])
    steps = (r["tolerance"] for r in rungs if (r["precision"], r["name"]) == ("float64", "steps"))
    return parity_verdict.number(next(steps, np.nan))


def learning_curves(
    workload: str, epochs: pd.DataFrame, metric: str, styles: Looks, limits: str = ""
) -> Picture | None:
    """Draw training loss and test metric by epoch and by wall-clock time, medians over seeds."""
    if epochs["epoch"].nunique() < 2:
        return None  # no curve: the table has it
    figure, axes = new(WIDE, 2 * SIZE[1], nrows=2, ncols=2, sharey="row", sharex="col")
    variants = list(dict.fromkeys(epochs["variant"]))
    columns = ["train_loss", "metric", "wall_seconds"]
    grouped = epochs.groupby(["variant", "epoch"], sort=False)[columns]
    medians, lows, highs = grouped.median(), grouped.min(), grouped.max()
    words = []
    for k, variant in enumerate(variants):
        look, width = styles[variant], 1.2 + 1.3 * (len(variants) - 1 - k)  # all are seen
        middle, low, high = (frame.loc[variant] for frame in (medians, lows, highs))
        for row, column in enumerate(("train_loss", "metric")):
            for ax, x in zip(axes[row], (middle.index + 1, middle["wall_seconds"])):
                line = {"marker": look.marker, "linewidth": width, "label": variant}
                ax.plot(x, middle[column], **look.style(markersize=4, **line))
                ax.fill_between(x, low[column], high[column], color=look.colour, alpha=0.12, lw=0)
        loss, value, seconds = middle.iloc[-1]
        words.append(
            f"{variant} ends at loss {loss:.4f}, {metric} {value:.4f} after {seconds:.3g} s"
        )
    panel(axes[0, 0], ylabel="Training loss", yscale="log", width=110)
    panel(axes[0, 1], width=None)
    panel(axes[1, 0], xlabel="Epoch", ylabel=f"Test {metric}", width=None)
    panel(axes[1, 1], xlabel="Seconds since the start of the process", width=None)
    ticks(axes[0, 0].yaxis, loss_ticks(*axes[0, 0].get_ylim()))
    axes[1, 0].xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    return finish(
        figure,
        f"{workload}-learning",
        f"Training loss and test {metric}, by epoch and by wall-clock time",
        words,
        "Median over seeds, band from lowest to highest. Curves that coincide are drawn over each "
        "other, the first the widest. Wall-clock time includes preparation and evaluation. "
        + limits,
    )


def loss_ticks(low: float, high: float) -> list[float]:
    """Return values to label between two losses: round ones, at least two."""
    found = [tick for tick in LOSS_TICKS if low <= tick <= high]
    if len(found) < 2:
        found = [t for t in mpl.ticker.MaxNLocator(4).tick_values(low, high) if low <= t <= high]
    return found


# How much losses differ ------------------------------------------------------------------------

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


KINDS = {
    "between": (PALETTE["purple"], "-", "between frameworks"),
    "twin": (INK, "--", "twin: floor for another library"),
    "within": (PALETTE["green"], "-.", "within one framework, which shares its kernels"),
    "seeds": (PALETTE["grey"], ":", "between seeds of a variant"),
}
FLOOR = (
    "The twin is the first variant trained again from weights that differ in their last bits: two "
    "libraries cannot agree more closely than that. Two variants of one framework share its "
    "kernels, so their line is no floor for another library."
)
NO_FLOOR = (
    "The parity verdict holds no curve of a twin, hence there is no floor to read the difference "
    "between frameworks against."
)


def difference_curves(workload: str, curves: Iterable[Curve], limits: str = "") -> Picture | None:
    """Draw how far two variants' losses differ during training.

    Args:
        workload: for the file's name.
        curves: of `curves`.
        limits: what is not drawn, in sentences.
    """
    curves = list(curves)
    if not curves:
        return None
    figure, ax = new()
    words, seen = [], set()
    for label, kind, steps, values in curves:
        colour, line, name = KINDS[kind]
        positive = np.where(values > 0, values, np.nan)
        shown: Mapping[str, Any] = {} if kind in seen else {"label": name}
        ax.plot(steps, positive, color=colour, linestyle=line, linewidth=1.3, **shown)
        seen.add(kind)
        words.append(f"{label} ({name}) ends at {values[-1]:.1e}")
    panel(ax, xlabel="Step", ylabel="Relative difference of the loss", yscale="log")
    ax.yaxis.set_major_formatter(mpl.ticker.FuncFormatter(power_of_ten))
    ax.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    note = f"At equal seed, median over seeds. {FLOOR if 'twin' in seen else NO_FLOOR} {limits}"
    return finish(figure, f"{workload}-difference", "How much losses differ", words, note)
