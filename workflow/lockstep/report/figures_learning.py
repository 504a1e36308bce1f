"""Figures of what is learned: parity, losses, and how far frameworks are apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns

from lockstep.report.drawing import (
    INK,
    OTHER,
    SIZE,
    Look,
    Picture,
    finish,
    grid,
    legend,
    new,
    plain_log,
    power_of_ten,
    powers,
)

LOSS_TICKS = [m * 10.0**e for e in range(-6, 3) for m in (1, 2, 5)]


def loss_curves(
    workload: str, epochs: pd.DataFrame, styles: Mapping[str, Look], limits: str = ""
) -> Picture | None:
    """Draw training loss by epoch: median over seeds, band from lowest to highest.

    Args:
        limits: what is not drawn, in sentences.
    """
    if epochs["epoch"].nunique() < 2:
        return None  # no curve: the table says it
    figure, axes = new()
    variants = list(dict.fromkeys(epochs["variant"]))
    widths = {v: 1.2 + 1.3 * k for k, v in enumerate(reversed(variants))}
    sns.lineplot(
        epochs.assign(epoch=epochs["epoch"] + 1),
        x="epoch",
        y="train_loss",
        hue="variant",
        style="variant",
        size="variant",
        hue_order=variants,
        style_order=variants,
        palette={v: styles[v].colour for v in variants},
        markers={v: styles[v].marker for v in variants},
        dashes={v: styles[v].dashes for v in variants},
        sizes=widths,  # curves that coincide are all seen
        markersize=4,
        estimator="median",
        errorbar=lambda values: (values.min(), values.max()),
        err_kws={"alpha": 0.12, "linewidth": 0},
        ax=axes,
    )
    last = (
        epochs[epochs["epoch"] == epochs["epoch"].max()].groupby("variant")["train_loss"].median()
    )
    ends = [f"{v} ends at {last[v]:.4f}" for v in variants if v in last]
    axes.set(xlabel="Epoch", ylabel="Training loss", yscale="log")
    low, high = axes.get_ylim()
    axes.set_yticks(loss_ticks(low, high))
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    plain_log(axes.yaxis)
    grid(axes)
    legend(axes)
    return finish(
        figure,
        f"{workload}-loss",
        "Training loss over seeds",
        f"{'; '.join(ends)}.",
        "Median over seeds, band from lowest to highest. Curves that coincide are drawn over each "
        f"other, the first the widest. {limits}".strip(),
    )


def loss_ticks(low: float, high: float) -> list[float]:
    """Return values to label between two losses: round ones, at least two."""
    ticks = [tick for tick in LOSS_TICKS if low <= tick <= high]
    if len(ticks) < 2:
        ticks = [t for t in mpl.ticker.MaxNLocator(4).tick_values(low, high) if low <= t <= high]
    return ticks


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
            look = styles.get(variant) or Look(colour=OTHER, dashes="", marker="o")
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


def difference_curves(
    workload: str, curves: Sequence[tuple[str, str, np.ndarray, np.ndarray]], limits: str = ""
) -> Picture | None:
    """Draw how far two variants' losses are apart during training, between and within frameworks.

    Args:
        workload: for the file's name.
        curves: label, kind (`between`, `twin`, `within` or `seeds`), steps ``(points,)`` and
            relative difference ``(points,)``.
        limits: what is not drawn, in sentences.
    """
    if not curves:
        return None
    figure, axes = new()
    kinds = {
        "between": ("#7b3294", "-", "between frameworks"),
        "twin": (INK, "--", "twin: floor for another library"),
        "within": ("#008837", "-.", "within one framework, which shares its kernels"),
        "seeds": ("#888888", ":", "between seeds of a variant"),
    }
    said, seen = [], set()
    for label, kind, steps, values in curves:
        colour, line, words = kinds[kind]
        axes.plot(
            steps,
            np.where(values > 0, values, np.nan),
            color=colour,
            linestyle=line,
            linewidth=1.3,
            label=words if kind not in seen else None,
        )
        seen.add(kind)
        said.append(f"{label} ({words}) ends at {values[-1]:.1e}")
    floor = (
        "The twin is the first variant trained again from weights that differ in their last bits: "
        "two libraries cannot agree more closely than that. Two variants of one framework share "
        "its kernels, so their line is no floor for another library."
        if "twin" in seen
        else "The parity verdict holds no curve of a twin, hence there is no floor to read the "
        "difference between frameworks against."
    )
    axes.set(xlabel="Step", ylabel="Relative difference of the loss", yscale="log")
    powers(axes.yaxis)
    grid(axes)
    legend(axes)
    return finish(
        figure,
        f"{workload}-difference",
        "How far losses are apart",
        f"{'; '.join(said)}.",
        " ".join(filter(None, ("At equal seed, median over seeds.", floor, limits))),
    )
