"""All figures of a report, and those of time: verdicts and runs."""

from collections.abc import Sequence
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd

from lockstep.report import dataframes, drawing, learning_figures, result_tables, statistics
from lockstep.report.analysis import Analysis
from lockstep.report.dataframes import Workload
from lockstep.report.drawing import Looks
from lockstep.report.picture import INK, Picture
from lockstep.report.sentences import ratio_text
from lockstep.report.verdicts import NO_PAIR, NOT_COMPARABLE, Comparison

MOST_ROWS = 30
MOST_DOTS = 40


def draw(analysis: Analysis) -> dict[str, list[Picture]]:
    """Return all figures by workload; those over the whole study under an empty name."""
    styles = drawing.looks(analysis.records.study.config["variants"])
    drawn = {view.name: _pictures(view, styles) for view in analysis.workloads}
    verdicts = forest(analysis.comparisons, styles)
    return {**drawn, "": [replace(verdicts, name="verdicts")] if verdicts else []}


def _pictures(view: Workload, styles: Looks) -> list[Picture]:
    records, name = view.records, view.name
    made = {"parity": learning_figures.parity_curves(records, name, styles)}
    if "epochs" in view.tables:
        runs, ended = dataframes.finished(view.runs), dataframes.ended(view.runs)
        first = view.epochs[view.epochs["scale"] == records.study.config["scales"][0]]
        windows = dataframes.windows(records, name, learning_figures.SEEDS)
        metric, until = f"Final test {view.metric}", "Training time to the target (s)"
        step_time = runs.assign(step_median=1e3 * runs["step_median"])
        made |= {
            "learning": learning_figures.learning_curves(first, view.metric, styles),
            "difference": learning_figures.difference_curves(
                learning_figures.curves(records, name)
            ),
            "final-metric": dots(metric, runs, "metric", styles),
            "time-to-target": dots(until, ended, "target_seconds", styles, censored=True),
            "step-time": dots("Step time of each run (ms)", step_time, "step_median", styles),
            "step-course": step_course(windows, styles),
        }
    return [replace(found, name=f"{name}-{key}") for key, found in made.items() if found]


def forest(comparisons: Sequence[Comparison], styles: Looks) -> Picture | None:
    """Draw every verdict on time: ratio and 95% interval, one row for each comparison."""
    every = [c for c in comparisons if c.kind not in (NOT_COMPARABLE, NO_PAIR) and c.step_time]
    shown = [(c, c.step_time) for c in every[:MOST_ROWS] if c.step_time]
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
    if len(every) > len(shown):
        note += f" These are the first {len(shown)} of {len(every)}; the table has all."
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
    words, labels, crowded = [], [], False
    for y, ((where, variant), group) in enumerate(groups):
        labels.append(f"{variant}, {where}" if several else variant)
        x, full = group[column].to_numpy(dtype=float), np.ones(len(group), bool)
        if censored:
            x, full = result_tables.to_target(group)
        order = np.argsort(x, kind="stable")
        x, full, count = x[order], full[order], len(x)
        median = statistics.censored_median(x, full) if censored else float(np.median(x))
        lost = f", {(~full).sum()} of them censored" if not full.all() else ""
        if count > MOST_DOTS:
            chosen = np.linspace(0, count - 1, MOST_DOTS).round().astype(int)
            x, full, crowded = x[chosen], full[chosen], True
        at = y + np.resize([0.0, -0.13, 0.13, -0.06, 0.06], len(x))  # near ones beside each other
        axes.plot(x[full], at[full], **drawing.points(styles[variant], markersize=5))
        hollow = drawing.points(styles[variant], markersize=5, fillstyle="none")
        axes.plot(x[~full], at[~full], **hollow)
        if median is not None:
            axes.plot([median, median], [y - 0.32, y + 0.32], color=INK, linewidth=1.2)
        middle = "no median" if median is None else f"median {median:.4g}"
        words.append(f"{labels[-1]}: {middle} of {count} runs{lost}")
    drawing.rows(axes, labels, title)
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6))
    note = f"Each dot is one run, the line is the {'Kaplan–Meier ' if censored else ''}median."
    note += f" Of more than {MOST_DOTS} runs, evenly spaced ones are shown." if crowded else ""
    note += " Hollow: censored, not met by then." if censored else ""
    return drawing.finish(figure, title, words, note)


def step_course(windows: pd.DataFrame, styles: Looks) -> Picture | None:
    """Draw how step times are distributed, and their course along a run.

    Args:
        windows: of `lockstep.report.dataframes.windows`.
    """
    if not len(windows):
        return None
    figure, (left, right) = drawing.new(drawing.WIDE, ncols=2)
    words, shares = [], np.linspace(0, 1, 101)
    for variant, group in windows.groupby("variant", sort=False):
        times, style = 1e3 * group["seconds"], {**styles[variant], "marker": "", "label": variant}
        course = times.groupby(group["step"]).median()
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
        f"Of all windows but the first of each start, over at most {learning_figures.SEEDS} seeds "
        "of the study's first scale; the course is the median over seeds.",
    )
