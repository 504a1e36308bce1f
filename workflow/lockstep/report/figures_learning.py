"""Figures of what is learned: parity, losses and metrics, and how much losses differ."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from lockstep.report import step_losses
from lockstep.report.drawing import (
    SIZE,
    Look,
    Looks,
    finish,
    grid,
    legend,
    new,
    plain_log,
    power_of_ten,
    powers,
)
from lockstep.report.picture import INK, PALETTE, Picture

LOSS_TICKS = [m * 10.0**e for e in range(-6, 3) for m in (1, 2, 5)]


def parity_curves(
    workload: str, verdict: Mapping[str, Any], styles: Mapping[str, Look]
) -> Picture | None:
    """Draw each step's distance from the reference, with the envelope that it must stay in."""
    if not verdict["comparisons"]:
        return None
    figure, axes = new(ncols=2, width=2 * SIZE[0])
    worst = []
    for precision, ax in zip(("float64", "float32"), axes, strict=True):
        floor = EQUAL[precision]
        limit = None
        for variant, comparison in verdict["comparisons"].items():
            envelope = comparison["curves"].get("float32_tolerance")
            if precision == "float32" and envelope:
                known = np.array(envelope)
                steps = len(known) if limit is None else min(len(limit), len(known))
                limit = known if limit is None else np.maximum(limit[:steps], known[:steps])
            values = comparison["curves"].get(precision)
            if values is None:
                continue
            look = styles.get(variant) or Look(colour=PALETTE["other"], dashes="", marker="o")
            ax.plot(
                np.arange(1, len(values) + 1),
                np.maximum(values, floor),
                color=look.colour,
                linestyle="none",
                marker=look.marker,
                markersize=4,
                fillstyle="none",
                label=variant,
            )
            worst.append(f"{variant} in {precision} at most {max(values):.1e}")
        if precision == "float64":
            ax.axhline(
                _tolerance(verdict), color=INK, linewidth=1, linestyle="--", label="tolerance"
            )
        elif limit is not None:
            ax.plot(
                np.arange(1, len(limit) + 1),
                limit,
                color=INK,
                linewidth=1,
                linestyle="--",
                label="tolerance",
            )
        ax.set(xlabel=f"Step, in {precision}", ylabel="Relative difference of the loss")
        ax.set(yscale="log", ylim=(floor / 2, None))
        decades = [t for t in ax.get_yticks() if floor < t < ax.get_ylim()[1]]
        ax.set_yticks([floor, *decades], ["equal", *map(power_of_ten, decades)])
        ax.yaxis.set_minor_locator(mpl.ticker.NullLocator())
        grid(ax)
        legend(ax)
    return finish(
        figure,
        f"{workload}-parity",
        f"Difference of every step's loss from {verdict['reference']}",
        f"{'; '.join(worst) or 'no curve is finite'}.",
    )


EQUAL = {"float64": 1e-17, "float32": 1e-9}
"""Where a step that is equal to the bit is drawn."""


def _tolerance(verdict: Mapping[str, Any]) -> float:
    for comparison in verdict["comparisons"].values():
        for rung in comparison["rungs"]:
            if (rung["precision"], rung["name"]) == ("float64", "steps"):
                return float(rung["tolerance"])
    return float("nan")


def learning_curves(
    workload: str, epochs: pd.DataFrame, metric: str, styles: Looks, limits: str = ""
) -> Picture | None:
    """Draw training loss and test metric by epoch and by wall-clock time, medians over seeds."""
    if epochs["epoch"].nunique() < 2:
        return None  # no curve: the table has it
    figure, axes = new(2 * SIZE[0], 2 * SIZE[1], nrows=2, ncols=2, sharey="row", sharex="col")
    variants = list(dict.fromkeys(epochs["variant"]))
    columns = ["train_loss", "metric", "wall_seconds"]
    grouped = epochs.groupby(["variant", "epoch"], sort=False)[columns]
    medians, lows, highs = grouped.median(), grouped.min(), grouped.max()
    ends = []
    for k, variant in enumerate(variants):
        look, width = styles[variant], 1.2 + 1.3 * (len(variants) - 1 - k)  # all are seen
        middle, low, high = (frame.loc[variant] for frame in (medians, lows, highs))
        for row, column in enumerate(("train_loss", "metric")):
            for ax, x in zip(axes[row], (middle.index + 1, middle["wall_seconds"])):
                line = {"linestyle": look.line, "marker": look.marker, "linewidth": width}
                ax.plot(x, middle[column], color=look.colour, markersize=4, label=variant, **line)
                ax.fill_between(x, low[column], high[column], color=look.colour, alpha=0.12, lw=0)
        loss, value, seconds = middle.iloc[-1]
        ends.append(
            f"{variant} ends at loss {loss:.4f}, {metric} {value:.4f} after {seconds:.3g} s"
        )
    axes[0, 0].set(ylabel="Training loss", yscale="log")
    axes[0, 0].set_yticks(loss_ticks(*axes[0, 0].get_ylim()))
    plain_log(axes[0, 0].yaxis)
    axes[1, 0].set(xlabel="Epoch", ylabel=f"Test {metric}")
    axes[1, 0].xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    axes[1, 1].set(xlabel="Seconds since the start of the process")
    for ax in axes.flat:
        grid(ax)
    legend(axes[0, 0], 110)
    return finish(
        figure,
        f"{workload}-learning",
        f"Training loss and test {metric}, by epoch and by wall-clock time",
        f"{'; '.join(ends)}.",
        "Median over seeds, band from lowest to highest. Curves that coincide are drawn over each "
        f"other, the first the widest. Wall-clock time includes preparation and evaluation. "
        f"{limits}".strip(),
    )


def loss_ticks(low: float, high: float) -> list[float]:
    """Return values to label between two losses: round ones, at least two."""
    ticks = [tick for tick in LOSS_TICKS if low <= tick <= high]
    if len(ticks) < 2:
        ticks = [t for t in mpl.ticker.MaxNLocator(4).tick_values(low, high) if low <= t <= high]
    return ticks


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


def difference_curves(
    workload: str, curves: Sequence[step_losses.Curve], limits: str = ""
) -> Picture | None:
    """Draw how far two variants' losses are apart during training.

    Args:
        workload: for the file's name.
        curves: of `lockstep.report.step_losses`.
        limits: what is not drawn, in sentences.
    """
    if not curves:
        return None
    figure, axes = new()
    words, seen = [], set()
    for label, kind, steps, values in curves:
        colour, line, name = KINDS[kind]
        positive = np.where(values > 0, values, np.nan)
        shown = None if kind in seen else name
        axes.plot(steps, positive, color=colour, linestyle=line, linewidth=1.3, label=shown)
        seen.add(kind)
        words.append(f"{label} ({name}) ends at {values[-1]:.1e}")
    axes.set(xlabel="Step", ylabel="Relative difference of the loss", yscale="log")
    powers(axes.yaxis)
    grid(axes)
    legend(axes)
    notes = ("At equal seed, median over seeds.", FLOOR if "twin" in seen else NO_FLOOR, limits)
    return finish(
        figure,
        f"{workload}-difference",
        "How much losses differ",
        f"{'; '.join(words)}.",
        " ".join(filter(None, notes)),
    )
