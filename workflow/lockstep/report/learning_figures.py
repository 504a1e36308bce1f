"""Figures of what is learned: parity, losses and metrics, and how much losses differ.

Rounding makes two correct programs drift apart. How far says nothing by itself. It is read against
the *twin*: the reference trained again from weights that differ in their last bits.
"""

import itertools
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
        labels = ["equal", *(f"{t:.0e}" for t in decades)]
        ax.yaxis.set_ticks([floor, *decades], labels)
        ax.yaxis.set_minor_locator(mpl.ticker.NullLocator())
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
    grouped = epochs.groupby(["variant", "epoch"], observed=True)[columns]
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
"""Seeds that a curve is the median of, and pairs of variants that are drawn, at most."""

TWIN, FLOOR = "the twin: floor for another library", 10.0
"""Its label; the tolerance of float32 steps is so many times its difference."""

Curve = tuple[str, np.ndarray, np.ndarray]


def curves(records: Records, workload: str) -> Iterator[Curve]:
    """Yield how far losses differ between frameworks at the study's first scale, the twin's last.

    Yields:
        Label, steps ``(points,)`` and relative difference ``(points,)`` of each curve; a run whose
        steps cannot be used is in none.
    """
    study, losses = records.study, {}
    for variant, settings in study.config["variants"].items():
        runs = records.by_side[workload, variant, study.config["scales"][0]].values()
        usable = [run for run in runs if run.first_losses is not None][:SEEDS]
        if settings["input"] == "shared":
            losses[variant] = {
                run.seed: step_losses(study.root / run.folder, run.summary) for run in usable
            }
    drawn = 0
    for first, second in itertools.combinations(losses, 2):
        a, b = study.variant(first), study.variant(second)
        alike = a["framework"] != b["framework"] and a["precision"] == b["precision"]
        seeds = sorted(losses[first].keys() & losses[second].keys())
        if alike and seeds and drawn < CURVES:
            drawn += 1
            pairs = [(losses[first][seed], losses[second][seed]) for seed in seeds]
            yield f"{second} and {first}", *_difference(pairs)
    tolerance = parity_verdict.curves(records, workload).get("float32_tolerance")
    if drawn and tolerance is not None:
        yield TWIN, np.arange(1, len(tolerance) + 1), tolerance / FLOOR


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
    """Draw how far losses differ between frameworks, from what `curves` yields."""
    drawn, words = list(curves), []
    if not drawn:
        return None
    figure, ax = drawing.new()
    for (label, steps, values), line in zip(drawn, drawing.LINES):
        twin = {"color": INK, "linestyle": "--"} if label == TWIN else {}
        look = {"color": PALETTE["purple"], "linestyle": line, "linewidth": 1.3, **twin}
        ax.plot(steps, np.where(values > 0, values, np.nan), label=label, **look)
        words.append(f"{label} ends at {values[-1]:.1e}")
    drawing.panel(ax, xlabel="Step", ylabel="Relative difference of the loss", yscale="log")
    drawing.plain(ax.yaxis)
    return drawing.finish(
        figure,
        "How much losses differ between frameworks",
        words,
        f"At equal seed and precision and the study's first scale, median over at most {SEEDS} "
        f"seeds; at most {CURVES} pairs of variants. The twin is the first variant trained again "
        "from weights that differ in their last bits: two libraries cannot agree more closely than "
        "that, and without it there is no floor.",
    )
