"""Figures of time: verdicts, runs, parts of a run, scaling, performance profile."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd

from lockstep.report import statistics
from lockstep.report.drawing import INK, SIZE, Look, Picture, finish, grid, legend, new, plain_log
from lockstep.report.sentences import ratio_text
from lockstep.report.speed import COLD, SPLIT
from lockstep.report.verdicts import NO_PAIR, NOT_COMPARABLE, Comparison


def forest(comparisons: Sequence[Comparison], styles: Mapping[str, Look]) -> Picture | None:
    """Draw every verdict on time: ratio and 95% interval, a row a comparison."""
    rows = [c for c in comparisons if c.kind not in (NOT_COMPARABLE, NO_PAIR) and c.step_time]
    if not rows:
        return None
    drawn, rows = rows, rows[:MOST_ROWS]
    places = len({(c.workload, c.scale) for c in rows}) > 1
    figure, axes = new(width=2 * SIZE[0], height=0.8 + 0.3 * len(rows))
    said, labels = [], []
    for y, c in enumerate(rows):
        r, look = c.step_time, styles[c.candidate]
        if r is None:
            continue
        if r.low is not None and r.high is not None:
            axes.plot(
                [r.low, r.high], [y, y], color=look.colour, linewidth=2, solid_capstyle="butt"
            )
        axes.plot(r.value, y, color=look.colour, marker=look.marker, markersize=6, linestyle="none")
        labels.append(
            f"{c.candidate} / {c.baseline}" + (f"\n{c.workload}, {c.scale}" if places else "")
        )
        said.append(f"{c.candidate} over {c.baseline} {ratio_text(r)}, {c.kind}")
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 1 / 1.1), max(high, 1.1))
    low, high = axes.get_xlim()
    choice = next((c for c in RATIO_TICKS if c[0] <= low and high <= c[-1]), RATIO_TICKS[-1])
    ticks = [t for t in choice if low <= t <= high]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel("Ratio of step times with its 95% interval")
    grid(axes, "x")
    return finish(
        figure,
        "verdicts",
        "Step time against step time",
        "; ".join(said) + ".",
        "Left of 1, the variant named first is faster."
        + (
            f" These are the first {len(rows)} of {len(drawn)}; the table has all."
            if len(drawn) > len(rows)
            else ""
        ),
    )


MOST_ROWS = 30
RATIO_TICKS = (
    (0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15, 1.2),
    (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.4, 1.7, 2, 2.5, 3),
    (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100),
)
"""Ticks of an axis of ratios, from the narrowest range to the widest."""


MOST_DOTS = 40


def dots(
    name: str,
    title: str,
    groups: Sequence[tuple[str, str, pd.DataFrame]],
    column: str,
    unit: str,
    styles: Mapping[str, Look],
    *,
    scale: float = 1.0,
    censored: str | None = None,
) -> Picture | None:
    """Draw a dot a run and a line at the median, a row a variant and scale.

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
    said = []
    for y, ((_, variant, group), label) in enumerate(zip(filled, labels, strict=True)):
        group = group.sort_values(column, kind="stable")
        look, x = styles[variant], group[column].to_numpy(dtype=float) * scale
        full = group[censored].to_numpy(dtype=bool) if censored else np.ones(len(x), bool)
        count, lost = len(x), int((~full).sum())
        median = statistics.censored_median(x, full) if censored else float(np.median(x))
        if count > MOST_DOTS:
            chosen = np.linspace(0, count - 1, MOST_DOTS).round().astype(int)
            x, full = x[chosen], full[chosen]
        offset = np.resize([0.0, -0.13, 0.13, -0.06, 0.06], len(x))  # near ones beside each other
        options = {
            "color": look.colour,
            "marker": look.marker,
            "linestyle": "none",
            "markersize": 5,
        }
        axes.plot(x[full], (y + offset)[full], alpha=0.75, **options)
        axes.plot(x[~full], (y + offset)[~full], fillstyle="none", **options)
        for a, b in zip(x[~full], (y + offset)[~full], strict=True):
            axes.annotate(
                "→", (a, b), xytext=(4, -3), textcoords="offset points", color=look.colour
            )
        if median is not None:
            axes.plot([median, median], [y - 0.32, y + 0.32], color=INK, linewidth=1.2)
        said.append(
            f"{label}: "
            + ("no median" if median is None else f"median {median:.4g} {unit}".strip())
            + f" of {count} runs"
            + (f", {lost} of them censored" if lost else "")
        )
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel(f"{title} ({unit})" if unit else title)
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6))
    grid(axes, "x")
    kind = "Kaplan–Meier median" if censored else "median"
    note = f"A dot a run, a line at the {kind}."
    if any(len(group) > MOST_DOTS for _, _, group in filled):
        note = (
            f"A dot a run, a line at the {kind}; of more than {MOST_DOTS} runs, evenly spaced ones."
        )
    return finish(
        figure,
        name,
        title,
        "; ".join(said) + ".",
        note + " Hollow with an arrow: censored, not met by then." if censored else note,
    )


HATCHES = ("", "//", "", "xx", "\\\\", "", "++", "", "--")
SPLIT_COLOURS = (
    "#999999",
    "#88ccee",
    "#ddcc77",
    "#e69f00",
    "#cc79a7",
    "#009e73",
    "#882255",
    "#999933",
    "#555555",
)  # Paul Tol's muted palette, mostly; none of them is a framework's


def split_bars(workload: str, rows: Sequence[Mapping[str, Any]]) -> Picture | None:
    """Draw where the time of a run goes, as stacked bars."""
    if not rows:
        return None
    several = len({row["scale"] for row in rows}) > 1
    labels = [
        (f"{r['variant']}, {r['scale']}" if several else r["variant"])
        + (", cold start" if r["start"] == COLD else "")
        for r in rows
    ]
    figure, axes = new(width=2 * SIZE[0], height=max(1.9, 1.2 + 0.34 * len(rows)))
    left = np.zeros(len(rows))
    for (key, label), colour, hatch in zip(SPLIT, SPLIT_COLOURS, HATCHES, strict=True):
        values = np.array([row[key] for row in rows])
        axes.barh(
            labels,
            values,
            left=left,
            color=colour,
            label=label,
            height=0.62,
            edgecolor="white",
            linewidth=0.5,
            hatch=hatch,
        )
        left += values
    axes.invert_yaxis()
    axes.set_xlabel("Time of a run (s)")
    grid(axes, "x")
    axes.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    totals = "; ".join(f"{a} {b:.3g} s" for a, b in zip(labels, left, strict=True))
    return finish(figure, f"{workload}-time-split", "Where the time of a run goes", f"{totals}.")


def scaling_lines(
    workload: str, rows: Sequence[Mapping[str, Any]], styles: Mapping[str, Look]
) -> Picture | None:
    """Draw throughput against devices, with perfect scaling as a thin line."""
    frame = pd.DataFrame(rows)
    if frame.empty or frame["devices"].nunique() < 2:
        return None
    figure, axes = new()
    for variant, group in frame.groupby("variant", sort=False):
        look, group = styles[variant], group.sort_values("devices")
        x, y = group["devices"].to_numpy(float), group["examples_per_second"].to_numpy(float)
        axes.plot(x, y, color=look.colour, linestyle=look.line, marker=look.marker, label=variant)
        axes.plot(x, y[0] * x / x[0], color=look.colour, linewidth=0.6, alpha=0.6)
    axes.set(xlabel="Devices", ylabel="Throughput (examples/s)", xscale="log", yscale="log")
    worlds = sorted(frame["devices"].unique())
    axes.set_xticks(worlds, [str(w) for w in worlds])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    plain_log(axes.yaxis)
    grid(axes)
    legend(axes)
    said = "; ".join(
        f"{r['variant']} at {r['scale']} "
        + (f"{r['efficiency']:.0%}" if isinstance(r["efficiency"], float) else str(r["efficiency"]))
        for r in rows
        if r["scale"] != r["against"]
    )
    return finish(
        figure,
        f"{workload}-scaling",
        "Strong scaling (thin lines: perfect)",
        f"Efficiency: {said}.",
    )


def profile_steps(ratios: pd.DataFrame, styles: Mapping[str, Look]) -> Picture:
    """Draw the performance profile: share of problems within a factor of the best."""
    figure, axes = new()
    finite = ratios.to_numpy()[np.isfinite(ratios.to_numpy())]
    right = max(1.1, float(finite.max()) * 1.05)
    said = []
    for variant in ratios:
        look = styles[variant]
        x = np.sort(ratios[variant][np.isfinite(ratios[variant])].to_numpy())
        y = np.arange(1, len(x) + 1) / len(ratios)
        start = [0.0 if not len(x) or x[0] > 1 else float((x <= 1).mean() * len(x) / len(ratios))]
        xs, ys = [1.0, *x, right], [*start, *y, y[-1] if len(y) else 0.0]
        axes.step(xs, ys, where="post", color=look.colour, linestyle=look.line, label=variant)
        said.append(f"{variant} is best on {int((x <= 1).sum())} of {len(ratios)}")
    axes.set(xlabel="Step time over the best (ratio)", ylabel="Share of problems", ylim=(0, 1.02))
    grid(axes, "both")
    legend(axes)
    return finish(
        figure,
        "performance-profile",
        "Performance profile over workloads and scales",
        f"{'; '.join(said)}.",
        "The share of problems on which a variant's step takes at most so many times the best "
        "one's (Dolan & Moré 2002): higher is better.",
    )
