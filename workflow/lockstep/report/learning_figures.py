"""Figures of what is learned: parity, losses and metrics, and how much losses differ.

Rounding makes two correct programs drift apart. How far says nothing by itself. It is read against
the *twin*: the reference trained again from weights that differ in their last bits. Two variants of
one framework share its kernels and are closer than another library can be.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd

from lockstep.records import parity_verdict
from lockstep.records.load import Records, step_losses
from lockstep.report import drawing
from lockstep.report.drawing import Looks
from lockstep.report.picture import INK, PALETTE, Picture

EQUAL = {"float64": 1e-17, "float32": 1e-9}
"""Where a step that is equal to the bit is drawn."""


def parity_curves(records: Records, workload: str, styles: Looks) -> Picture | None:
    """Draw each step's difference from the reference, with the tolerance that it must stay in."""
    verdict = records.parity.get(workload)
    if not verdict or not verdict["comparisons"]:
        return None
    rungs = [rung for c in verdict["comparisons"].values() for rung in c["rungs"]]
    steps = next(r for r in rungs if (r["precision"], r["name"]) == ("float64", "steps"))
    limit = parity_verdict.curves(records, workload).get("float32_tolerance", np.empty(0))
    tolerance = {"color": INK, "linewidth": 1, "linestyle": "--", "label": "tolerance"}
    figure, axes = drawing.new(drawing.WIDE, ncols=2)
    axes[0].axhline(parity_verdict.number(steps["tolerance"]), **tolerance)
    axes[1].plot(np.arange(1, len(limit) + 1), limit, **tolerance)
    words = []
    for (precision, floor), ax in zip(EQUAL.items(), axes, strict=True):
        for variant, comparison in verdict["comparisons"].items():
            values = comparison["curves"].get(precision)
            if values is not None:
                look = drawing.points(
                    styles.get(variant, drawing.OTHER), fillstyle="none", markersize=4
                )
                shown = np.maximum(values, floor)
                ax.plot(np.arange(1, len(values) + 1), shown, label=variant, **look)
                words.append(f"{variant} in {precision} at most {max(values):.1e}")
        label = "Relative difference of the loss"
        drawing.panel(ax, xlabel=f"Step, in {precision}", ylabel=label, yscale="log")
        ax.set_ylim(floor / 2, None)
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6, integer=True))
        decades = [t for t in ax.get_yticks() if floor < t < ax.get_ylim()[1]]
        drawing.ticks(
            ax.yaxis, [floor, *decades], ["equal", *(drawing.POWER.format(x=t) for t in decades)]
        )
    title = f"Difference of every step's loss from {verdict['reference']}"
    return drawing.finish(figure, title, words or ["no curve is finite"])


def learning_curves(epochs: pd.DataFrame, metric: str, styles: Looks) -> Picture | None:
    """Draw training loss and test metric by epoch and by wall-clock time, medians over seeds."""
    if epochs["epoch"].nunique() < 2:
        return None  # no curve: the table has it
    figure, axes = drawing.new(
        drawing.WIDE, 2 * drawing.SIZE[1], nrows=2, ncols=2, sharey="row", sharex="col"
    )
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
                ax.plot(x, middle[column], label=variant, linewidth=width, markersize=4, **look)
                ax.fill_between(x, low[column], high[column], color=look["color"], alpha=0.12, lw=0)
        loss, value, seconds = middle.iloc[-1]
        words.append(
            f"{variant} ends at loss {loss:.4f}, {metric} {value:.4f} after {seconds:.3g} s"
        )
    drawing.panel(axes[0, 0], ylabel="Training loss", yscale="log", width=110)
    drawing.panel(axes[0, 1], width=None)
    drawing.panel(axes[1, 0], xlabel="Epoch", ylabel=f"Test {metric}", width=None)
    drawing.panel(axes[1, 1], xlabel="Seconds since the start of the process", width=None)
    drawing.plain(axes[0, 0].yaxis)
    axes[1, 0].xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    return drawing.finish(
        figure,
        f"Training loss and test {metric}, by epoch and by wall-clock time",
        words,
        "At the study's first scale. Median over seeds, band from lowest to highest. Curves that "
        "coincide are drawn over each other, the first the widest. Wall-clock time includes "
        "preparation and evaluation.",
    )


# How much losses differ ------------------------------------------------------------------------

POINTS = 80
SEEDS, CURVES = 5, 4
"""Seeds that a curve is the median of, and curves of a kind that are drawn, at most."""

TWIN = 10.0
"""The tolerance of float32 steps is this many times the difference of the twin."""

KINDS = {
    "between": (PALETTE["purple"], "-", "between frameworks"),
    "twin": (INK, "--", "twin: floor for another library"),
    "within": (PALETTE["green"], "-.", "within one framework, which shares its kernels"),
    "seeds": (PALETTE["grey"], ":", "between seeds of a variant"),
}

Curve = tuple[str, str, np.ndarray, np.ndarray]


def curves(records: Records, workload: str) -> Iterator[Curve]:
    """Yield the curves of a workload at the study's first scale.

    Yields:
        Label, kind (of `KINDS`), steps ``(points,)`` and relative difference ``(points,)`` of each
        curve; a run whose steps cannot be used is in none.
    """
    study, found = records.study, {}
    for variant in study.config["variants"]:
        runs = records.by_side[workload, variant, study.config["scales"][0]].values()
        usable = [run for run in runs if run.first_losses is not None]
        found[variant] = {
            run.seed: step_losses(study.root / run.folder, run.summary) for run in usable[:SEEDS]
        }
    drawn = Counter[str]()
    for first, second in itertools.combinations(found, 2):
        a, b = study.variant(first), study.variant(second)
        kind = "within" if a["framework"] == b["framework"] else "between"
        alike = a["precision"] == b["precision"] and "native" not in (a["input"], b["input"])
        seeds = sorted(found[first].keys() & found[second].keys())
        if alike and seeds and drawn[kind] < CURVES:
            drawn[kind] += 1
            pairs = [(found[first][seed], found[second][seed]) for seed in seeds]
            yield f"{second} and {first}", kind, *_difference(pairs)
    for variant, by_seed in found.items():
        if len(by_seed) > 1:
            yield variant, "seeds", *_difference(list(itertools.pairwise(by_seed.values())))
            break
    tolerance = parity_verdict.curves(records, workload).get("float32_tolerance")
    if tolerance is not None:
        steps = np.arange(1, len(tolerance) + 1)
        yield "the twin of the reference", "twin", steps, tolerance / TWIN


def _difference(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Return steps and the median over pairs of ``|a - b| / |b|``, in at most `POINTS` bins.

    A bin holds the mean of its steps: a median would jump to 0 wherever most are equal to the bit.
    """
    length = min(len(losses) for pair in pairs for losses in pair)
    a, b = (np.stack([pair[k][:length] for pair in pairs]) for k in (0, 1))
    relative = np.median(np.abs(a - b) / np.maximum(np.abs(b), 1e-12), axis=0)
    edges = np.unique(np.linspace(0, length, POINTS + 1).astype(int))
    means = np.add.reduceat(relative, edges[:-1]) / np.diff(edges)
    return (edges[:-1] + edges[1:] - 1) / 2 + 1, means


def difference_curves(curves: Iterable[Curve]) -> Picture | None:
    """Draw how far two variants' losses differ during training, from what `curves` yields."""
    curves, words, seen = list(curves), [], set[str]()
    if not curves:
        return None
    figure, ax = drawing.new()
    for label, kind, steps, values in curves:
        colour, style, name = KINDS[kind]
        positive = np.where(values > 0, values, np.nan)
        known = "" if kind in seen else name
        ax.plot(steps, positive, color=colour, linestyle=style, linewidth=1.3, label=known or None)
        seen.add(kind)
        words.append(f"{label} ({name}) ends at {values[-1]:.1e}")
    drawing.panel(ax, xlabel="Step", ylabel="Relative difference of the loss", yscale="log")
    ax.yaxis.set_major_formatter(drawing.POWER)
    ax.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    return drawing.finish(
        figure,
        "How much losses differ",
        words,
        "At equal seed and the study's first scale, median over at most "
        f"{SEEDS} seeds; at most {CURVES} pairs of variants of each kind. The twin is the first "
        "variant trained again from weights that differ in their last bits: two libraries cannot "
        "agree more closely than that, and without it there is no floor. Two variants of one "
        "framework share its kernels, so their line is no floor for another library.",
    )
