"""All figures of a report: verdicts and runs, parity, what is learned, and how steps go.

Rounding makes two correct programs drift apart. How far says nothing by itself. It is read against
the *twin*: the reference trained again from weights that differ in their last bits.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd

from lockstep.records import parity_verdict
from lockstep.records.load import Record, Records, step_losses
from lockstep.records.record_validation import FINISHED
from lockstep.report import dataframes, drawing, firststep, statistics
from lockstep.report.analysis import Analysis
from lockstep.report.dataframes import Workload
from lockstep.report.drawing import Looks
from lockstep.report.picture import INK, PALETTE, Picture
from lockstep.report.result_tables import to_target
from lockstep.report.sentences import ratio_text
from lockstep.report.verdicts import NO_PAIR, NOT_COMPARABLE, Comparison

MOST_DOTS, SEEDS = 40, 5
"""In a row of dots; of each variant, in figures of windows and of single steps."""


def draw(analysis: Analysis) -> dict[str, list[Picture]]:
    """Return all figures by workload; those over the whole study under an empty name."""
    styles = drawing.looks(analysis.records.study.config["variants"])
    drawn = {view.name: _pictures(view, styles) for view in analysis.workloads}
    verdicts = forest(analysis.shown, styles)
    return {**drawn, "": [replace(verdicts, name="verdicts")] if verdicts else []}


def _pictures(view: Workload, styles: Looks) -> list[Picture]:
    records, name = view.records, view.name
    made = {"parity": parity_curves(records, name, styles)}
    if "epochs" in view.tables:
        runs = dataframes.finished(view.runs)
        timed = dataframes.timed(dataframes.ended(view.runs))
        first = view.epochs[view.epochs["scale"] == records.study.config["scales"][0]]
        until = "Training time to the target (s)"
        step_time = runs.assign(step_median=1e3 * runs["step_median"])
        made |= {
            "learning": learning_curves(first, view.metric, styles),
            "difference": difference_curves(records, name),
            "final-metric": dots(f"Final test {view.metric}", runs, "metric", styles),
            "time-to-target": dots(until, timed, "target_seconds", styles, censored=True),
            "step-time": dots("Step time of each run (ms)", step_time, "step_median", styles),
            "step-course": step_course(records, name, styles),
        }
    return [replace(found, name=f"{name}-{key}") for key, found in made.items() if found]


def forest(comparisons: Sequence[Comparison], styles: Looks) -> Picture | None:
    """Draw every verdict on time: ratio and 95% interval, one row for each comparison."""
    unlike = (NOT_COMPARABLE, NO_PAIR)
    shown = [(c, c.step_time) for c in comparisons if c.step_time and c.kind not in unlike]
    if not shown:
        return None
    several = len({(c.workload, c.scale) for c, _ in shown}) > 1
    figure, axes = drawing.new(drawing.WIDE, 0.8 + (0.38 if several else 0.3) * len(shown))
    words, labels = [], []
    for y, (c, r) in enumerate(shown):
        look = styles[c.candidate]
        if r.low is not None and r.high is not None:
            axes.plot([r.low, r.high], [y, y], color=look["color"], lw=2, solid_capstyle="butt")
        axes.plot(r.value, y, **drawing.points(look, markersize=6))
        where = f"\n{c.workload}, {c.scale}" if several else ""
        labels.append(f"{c.candidate} / {c.baseline}{where}")
        words.append(f"{c.candidate} over {c.baseline} {ratio_text(r)}, {c.kind}")
    axes.axvline(1, color=INK, linewidth=0.8)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 1 / 1.1), max(high, 1.1))
    drawing.plain(axes.xaxis)
    drawing.rows(axes, labels, "Ratio of step times with its 95% interval")
    note = "Left of 1, the variant named first is faster."
    return drawing.finish(figure, "Step time against step time", words, note)


def dots(
    title: str, runs: pd.DataFrame, column: str, styles: Looks, *, censored: bool = False
) -> Picture | None:
    """Draw one dot for each run and a line at the median, a row for each variant and scale.

    Where times to a target are `censored`, the dot of a run that did not meet it is hollow, and the
    median is Kaplan and Meier's.
    """
    known = runs if censored else runs.dropna(subset=[column])
    if known.empty:
        return None
    several = known["scale"].nunique() > 1
    groups = list(dataframes.by_variant(known))
    figure, axes = drawing.new(height=max(1.5, 0.7 + 0.34 * len(groups)))
    words, labels, missed = [], [], 0
    for y, ((where, variant), group) in enumerate(groups):
        labels.append(f"{variant}, {where}" if several else variant)
        x, full = group[column].to_numpy(dtype=float), np.ones(len(group), bool)
        if censored:
            x, full = to_target(group)
        order = np.argsort(x, kind="stable")
        x, full = x[order], full[order]
        median = statistics.censored_median(x, full) if censored else float(np.median(x))
        lost = f", {(~full).sum()} of them censored" if not full.all() else ""
        missed += (~full).sum()
        middle = "no median" if median is None else f"median {median:.4g}"
        words.append(f"{labels[-1]}: {middle} of {len(x)} runs{lost}")
        chosen = np.unique(np.linspace(0, len(x) - 1, MOST_DOTS).round().astype(int))
        x, full = x[chosen], full[chosen]
        at = y + np.resize([0.0, -0.13, 0.13, -0.06, 0.06], len(x))  # near ones beside each other
        axes.plot(x[full], at[full], **drawing.points(styles[variant], markersize=5))
        hollow = drawing.points(styles[variant], markersize=5, fillstyle="none")
        axes.plot(x[~full], at[~full], **hollow)
        if median is not None:
            axes.plot([median, median], [y - 0.32, y + 0.32], color=INK, linewidth=1.2)
    drawing.rows(axes, labels, title)
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6))
    note = "Each dot is one run"
    if any(len(group) > MOST_DOTS for _, group in groups):
        note += f" (of more than {MOST_DOTS}, evenly spaced ones)"
    note += f"; the line is the {'Kaplan–Meier median' if censored else 'median'}."
    note += " Hollow: censored, not met by then." if missed else ""
    return drawing.finish(figure, title, words, note)


def _first_runs(records: Records, workload: str, variant: str) -> list[Record]:
    """Return finished runs of a variant at the study's first scale, at most `SEEDS`."""
    runs = records.by_side[workload, variant, records.study.config["scales"][0]].values()
    return [run for run in runs if run.status == FINISHED][:SEEDS]


def step_course(records: Records, workload: str, styles: Looks) -> Picture | None:
    """Draw how step times are distributed, and their course along a run."""
    found = {}
    for variant in styles:
        runs = [run.windows for run in _first_runs(records, workload, variant) if run.windows]
        if windows := [pd.Series(1e3 * run["seconds_per_step"], run["at"]) for run in runs]:
            found[variant] = pd.concat(windows)
    if not found:
        return None
    figure, (left, right) = drawing.new(drawing.WIDE, ncols=2)
    words, shares = [], np.linspace(0, 1, 101)
    for variant, times in found.items():
        style = {**styles[variant], "marker": "", "label": variant}
        course = times.groupby(level=0).median()
        left.plot(times.quantile(shares), shares, **style)
        right.plot(course.index, course, **style)
        low, high = times.quantile([0.05, 0.95])
        words.append(f"{variant}: 90% of its windows between {low:.3g} and {high:.3g} ms per step")
    share = "Share of windows up to this time"
    drawing.panel(left, "both", xlabel="Step time (ms)", ylabel=share, xscale="log")
    drawing.panel(right, "both", xlabel="Step", ylabel="Step time (ms)", yscale="log")
    drawing.plain(left.xaxis)
    drawing.plain(right.yaxis)
    return drawing.finish(
        figure,
        "Distribution of step times, and their course along a run",
        words,
        f"Of all windows but the first of each start, over at most {SEEDS} seeds "
        "of the study's first scale; the course is the median over seeds.",
    )


# Parity, learning, and how much losses differ -------------------------------------------------

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
        for variant, style in styles.items():
            values = verdict["comparisons"].get(variant, {"curves": {}})["curves"].get(precision)
            if values is not None:
                look = drawing.points(style, fillstyle="none", markersize=4)
                shown = np.maximum(values, floor)
                ax.plot(np.arange(1, len(values) + 1), shown, label=variant, **look)
                words.append(f"{variant} in {precision} at most {max(values):.1e}")
        label = "Relative difference of the loss"
        drawing.panel(ax, xlabel=f"Step, in {precision}", ylabel=label, yscale="log")
        ax.set_ylim(floor / 2, None)
        ax.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6, integer=True))
        decades = [t for t in ax.get_yticks() if floor < t < ax.get_ylim()[1]]
        ax.yaxis.set_ticks([floor, *decades], ["equal", *(f"{t:.0e}" for t in decades)])
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


POINTS = 80
CURVES = 4
"""Pairs of variants that are drawn, at most."""

TWIN, FLOOR = "the twin: floor for another library", 10.0
"""Its label; the tolerance of float32 steps is so many times its difference."""


def curves(records: Records, workload: str) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return how far losses differ between frameworks at the study's first scale; the twin last.

    Returns:
        Label, steps ``(points,)`` and relative difference ``(points,)`` of each curve; a run whose
        steps cannot be used is in none.
    """
    study, losses, between = records.study, {}, []
    for variant, settings in study.config["variants"].items():
        if firststep.fixed(settings):
            losses[variant] = {
                run.seed: step_losses(study.root / run.folder, run.summary)
                for run in _first_runs(records, workload, variant)
                if run.first_losses is not None
            }
    for first, second in itertools.combinations(losses, 2):
        a, b = study.variant(first), study.variant(second)
        alike = a["framework"] != b["framework"] and a["precision"] == b["precision"]
        if alike and (seeds := sorted(losses[first].keys() & losses[second].keys())):
            pairs = [(losses[first][seed], losses[second][seed]) for seed in seeds]
            between.append((f"{second} and {first}", *_difference(pairs)))
    tolerance = parity_verdict.curves(records, workload).get("float32_tolerance")
    if not between or tolerance is None:
        return between[:CURVES]
    return [*between[:CURVES], (TWIN, np.arange(1, len(tolerance) + 1), tolerance / FLOOR)]


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


def difference_curves(records: Records, workload: str) -> Picture | None:
    """Draw how far losses differ between frameworks, beside the floor."""
    drawn, words = curves(records, workload), []
    if not drawn:
        return None
    figure, ax = drawing.new()
    for (label, steps, values), line in zip(drawn, drawing.LINES):
        twin = {"color": INK, "linestyle": "--"} if label == TWIN else {}
        look = {"color": PALETTE["purple"], "linestyle": line, "linewidth": 1.3, **twin}
        ax.plot(steps, np.where(values > 0, values, np.nan), label=label, **look)
        words.append(f"{label} ends at {values[-1]:.1e}")
    drawing.panel(ax, xlabel="Step", ylabel="Relative difference of the loss", yscale="log")
    ax.yaxis.set_major_formatter("{x:.0e}")
    ax.yaxis.set_minor_locator(mpl.ticker.NullLocator())
    return drawing.finish(
        figure,
        "How much losses differ between frameworks",
        words,
        f"At equal seed and precision and the study's first scale, median over at most {SEEDS} "
        f"seeds; at most {CURVES} pairs of variants. The twin is the first variant trained again "
        "from weights that differ in their last bits: two libraries cannot agree more closely than "
        "that, and without it there is no floor.",
    )
