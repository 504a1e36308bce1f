"""All figures of a report, and those of time: verdicts, runs, parts of a run, scaling."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from lockstep.report import dataframes, figures_learning, learning, statistics, step_losses
from lockstep.report.analysis import Analysis, WorkloadPart
from lockstep.report.drawing import (
    SIZE,
    Looks,
    finish,
    grid,
    legend,
    looks,
    new,
    plain_log,
)
from lockstep.report.picture import INK, PALETTE, PAPER, Picture
from lockstep.report.sentences import ratio_text
from lockstep.report.time_tables import COLD, SPLIT
from lockstep.report.verdicts import NO_PAIR, NOT_COMPARABLE, Comparison

MOST_ROWS = 30
MOST_DOTS = 40
RATIO_TICKS = (
    (0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15, 1.2),
    (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.4, 1.7, 2, 2.5, 3),
    (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100),
)
"""Ticks of an axis of ratios, from the narrowest range to the widest."""


def draw(analysis: Analysis) -> dict[str, list[Picture]]:
    """Return all figures by workload; those over the whole study under an empty name."""
    styles = looks(analysis.records.study.config["variants"])
    drawn = {part.name: _pictures(analysis, part, styles) for part in analysis.workloads}
    verdicts = forest(analysis.comparisons, styles)
    return {**drawn, "": [verdicts] if verdicts else []}


def _pictures(analysis: Analysis, part: WorkloadPart, styles: Looks) -> list[Picture]:
    records, name, view = analysis.records, part.name, part.view
    verdict = records.parity.get(name)
    made = [figures_learning.parity_curves(name, verdict, styles) if verdict else None]
    if len(dataframes.finished(view.runs)):
        metric = view.recipe["target"]["metric"].replace("_", " ")
        limits = step_losses.limits(records)
        times = [
            (scale, variant, group.assign(target_seconds=seconds, target_reached=reached))
            for scale, variant, group in view.groups(dataframes.ended)
            if len(group)
            for seconds, reached in [learning.to_target(group)]
        ]
        first = view.epochs[view.epochs["scale"] == records.study.config["scales"][0]]
        made += [
            figures_learning.learning_curves(name, first, metric, styles, limits),
            figures_learning.difference_curves(name, part.curves, limits),
            dots(name, "final-metric", f"Final test {metric}", view.groups(), "metric", styles),
            dots(name, "time-to-target", "Training time to the target", times, "target_seconds",
                 styles, unit="s", censored="target_reached"),
            dots(name, "step-time", "Step time of each run", view.groups(), "step_median", styles,
                 unit="ms", scale=1e3),
            step_course(name, part.windows, styles, limits),
            split_bars(name, part.tables["time-split"].rows),
        ]  # fmt: skip
        if "scaling" in part.tables:
            made.append(scaling_lines(name, part.tables["scaling"].rows, styles))
    return [picture for picture in made if picture]


def forest(comparisons: Sequence[Comparison], styles: Looks) -> Picture | None:
    """Draw every verdict on time: ratio and 95% interval, one row for each comparison."""
    every = [c for c in comparisons if c.kind not in (NOT_COMPARABLE, NO_PAIR) and c.step_time]
    rows = [(c, c.step_time) for c in every[:MOST_ROWS] if c.step_time]
    if not rows:
        return None
    several = len({(c.workload, c.scale) for c, _ in rows}) > 1
    figure, axes = new(width=2 * SIZE[0], height=0.8 + 0.3 * len(rows))
    words, labels = [], []
    for y, (c, r) in enumerate(rows):
        look = styles[c.candidate]
        if r.low is not None and r.high is not None:
            axes.plot([r.low, r.high], [y, y], color=look.colour, lw=2, solid_capstyle="butt")
        axes.plot(r.value, y, color=look.colour, marker=look.marker, markersize=6, linestyle="none")
        where = f"\n{c.workload}, {c.scale}" if several else ""
        labels.append(f"{c.candidate} / {c.baseline}{where}")
        words.append(f"{c.candidate} over {c.baseline} {ratio_text(r)}, {c.kind}")
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 1 / 1.1), max(high, 1.1))
    low, high = axes.get_xlim()
    choice = next((c for c in RATIO_TICKS if c[0] <= low and high <= c[-1]), RATIO_TICKS[-1])
    ticks = [t for t in choice if low <= t <= high]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    _rows(axes, labels)
    axes.set_xlabel("Ratio of step times with its 95% interval")
    hidden = f" These are the first {len(rows)} of {len(every)}; the table has all."
    return finish(
        figure,
        "verdicts",
        "Step time against step time",
        "; ".join(words) + ".",
        "Left of 1, the variant named first is faster."
        + (hidden if len(every) > len(rows) else ""),
    )


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    """Label the rows of a figure, the first on top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    grid(axes, "x")


def dots(
    workload: str,
    name: str,
    title: str,
    groups: Any,
    column: str,
    styles: Looks,
    *,
    unit: str = "",
    scale: float = 1.0,
    censored: str | None = None,
) -> Picture | None:
    """Draw one dot for each run and a line at the median, a row for each variant and scale.

    Where the boolean column `censored` is False the dot is hollow and an arrow says "not yet";
    the median is then Kaplan and Meier's.
    """
    filled = [(s, v, g.dropna(subset=[column])) for s, v, g in groups if len(g)]
    filled = [(s, v, g) for s, v, g in filled if len(g)]
    if not filled:
        return None
    several = len({s for s, _, _ in filled}) > 1
    labels = [f"{v}, {s}" if several else v for s, v, _ in filled]
    figure, axes = new(height=max(1.5, 0.7 + 0.34 * len(filled)))
    words = []
    for y, ((_, variant, group), label) in enumerate(zip(filled, labels)):
        group = group.sort_values(column, kind="stable")
        look, x = styles[variant], group[column].to_numpy(dtype=float) * scale
        full = group[censored].to_numpy(dtype=bool) if censored else np.ones(len(x), bool)
        count, lost = len(x), int((~full).sum())
        median = statistics.censored_median(x, full) if censored else float(np.median(x))
        if count > MOST_DOTS:
            chosen = np.linspace(0, count - 1, MOST_DOTS).round().astype(int)
            x, full = x[chosen], full[chosen]
        at = y + np.resize([0.0, -0.13, 0.13, -0.06, 0.06], len(x))  # near ones beside each other
        mark = {"color": look.colour, "marker": look.marker, "linestyle": "none", "markersize": 5}
        axes.plot(x[full], at[full], **mark)
        axes.plot(x[~full], at[~full], fillstyle="none", **mark)
        for point in zip(x[~full], at[~full]):
            place = {"xytext": (4, -3), "textcoords": "offset points"}
            axes.annotate("→", point, color=look.colour, **place)
        if median is not None:
            axes.plot([median, median], [y - 0.32, y + 0.32], color=INK, linewidth=1.2)
        middle = "no median" if median is None else f"median {median:.4g} {unit}".strip()
        hollow = f", {lost} of them censored" if lost else ""
        words.append(f"{label}: {middle} of {count} runs{hollow}")
    _rows(axes, labels)
    axes.set_xlabel(f"{title} ({unit})" if unit else title)
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6))
    crowded = any(len(group) > MOST_DOTS for _, _, group in filled)
    note = f"Each dot is one run, the line is the {'Kaplan–Meier ' if censored else ''}median."
    note += f" Of more than {MOST_DOTS} runs, evenly spaced ones are shown." if crowded else ""
    note += " Hollow with an arrow: censored, not met by then." if censored else ""
    return finish(figure, f"{workload}-{name}", title, "; ".join(words) + ".", note)


def step_course(
    workload: str, windows: pd.DataFrame, styles: Looks, limits: str = ""
) -> Picture | None:
    """Draw how step times are distributed, and their course along a run.

    Args:
        windows: of `lockstep.report.analysis.windows`.
        limits: what is not drawn, in sentences.
    """
    if not len(windows):
        return None
    figure, (left, right) = new(2 * SIZE[0], ncols=2)
    words, shares = [], np.linspace(0, 1, 101)
    for variant, group in windows.groupby("variant", sort=False):
        look, times = styles[variant], 1e3 * group["seconds"]
        course = times.groupby(group["step"]).median()
        line = {"color": look.colour, "linestyle": look.line, "label": variant}
        left.plot(times.quantile(shares), shares, **line)
        right.plot(course.index, course, **line)
        low, high = times.quantile([0.05, 0.95])
        words.append(f"{variant}: 90% of its windows between {low:.3g} and {high:.3g} ms per step")
    left.set(xlabel="Step time (ms)", ylabel="Share of windows up to this time", xscale="log")
    right.set(xlabel="Step", ylabel="Step time (ms)", yscale="log")
    for ax, axis in ((left, left.xaxis), (right, right.yaxis)):
        axis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        plain_log(axis)
        grid(ax, "both")
    legend(left)
    legend(right)
    return finish(
        figure,
        f"{workload}-step-course",
        "Distribution of step times, and their course along a run",
        f"{'; '.join(words)}.",
        f"Of all windows but the first of each start, over at most {step_losses.SEEDS} seeds; the "
        f"course is the median over seeds. {limits}".strip(),
    )


HATCHES = ("", "//", "", "xx", "\\\\", "", "++", "", "--")
SPLIT_COLOURS = ("grey", "sky", "sand", "orange", "rose", "green", "wine", "olive", "slate")


def split_bars(workload: str, rows: Sequence[Mapping[str, Any]]) -> Picture | None:
    """Draw where the time of a run goes, as stacked bars."""
    if not rows:
        return None
    several = len({row["scale"] for row in rows}) > 1
    labels = [
        row["variant"]
        + (f", {row['scale']}" if several else "")
        + (", cold start" if row["start"] == COLD else "")
        for row in rows
    ]
    figure, axes = new(width=2 * SIZE[0], height=max(1.9, 1.2 + 0.34 * len(rows)))
    left = np.zeros(len(rows))
    for (key, label), colour, hatch in zip(SPLIT.items(), SPLIT_COLOURS, HATCHES):
        values = np.array([row[key] for row in rows], dtype=float)
        look = {"color": PALETTE[colour], "edgecolor": PAPER, "linewidth": 0.5, "hatch": hatch}
        axes.barh(range(len(rows)), values, left=left, label=label, height=0.62, **look)
        left += values
    _rows(axes, labels)
    axes.set_xlabel("Time of a run (s)")
    axes.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    totals = "; ".join(f"{a} {b:.3g} s" for a, b in zip(labels, left))
    return finish(figure, f"{workload}-time-split", "Where the time of a run goes", f"{totals}.")


def scaling_lines(
    workload: str, rows: Sequence[Mapping[str, Any]], styles: Looks
) -> Picture | None:
    """Draw throughput against devices, with perfect scaling as a thin line."""
    frame = pd.DataFrame(rows)
    if frame.empty or frame["devices"].nunique() < 2:
        return None
    figure, axes = new()
    for variant, group in frame.groupby("variant", sort=False):
        look, group = styles[variant], group.sort_values("devices")
        x, y = (group[name].to_numpy(float) for name in ("devices", "examples_per_second"))
        axes.plot(x, y, color=look.colour, linestyle=look.line, marker=look.marker, label=variant)
        axes.plot(x, y[0] * x / x[0], color=look.colour, linewidth=0.6)
    axes.set(xlabel="Devices", ylabel="Throughput (examples/s)", xscale="log", yscale="log")
    worlds = sorted(frame["devices"].unique())
    axes.set_xticks(worlds, [str(w) for w in worlds])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    plain_log(axes.yaxis)
    grid(axes)
    legend(axes)
    efficiency = "; ".join(
        f"{r['variant']} at {r['scale']} "
        + (f"{r['efficiency']:.0%}" if isinstance(r["efficiency"], float) else str(r["efficiency"]))
        for r in rows
        if r["scale"] != r["against"]
    )
    title = "Strong scaling (thin lines: perfect)"
    return finish(figure, f"{workload}-scaling", title, f"Efficiency: {efficiency}.")
