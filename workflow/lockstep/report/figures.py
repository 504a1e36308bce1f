"""The figures. Colour is the framework, line and marker are the variant, everywhere the same.

Text and axes are drawn in `INK` and become the page's own text colour where a figure is inlined,
so that one figure serves light and dark pages; text stays text.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lockstep.report import measures
from lockstep.report.verdicts import NO_PAIR, NOT_COMPARABLE, Comparison

INK = "#010203"
COLOURS = {"torch": "#d55e00", "jax": "#0072b2"}
"""Of Okabe and Ito's palette, which colour-blind people tell apart."""

OTHER = "#009e73"
DASHES: tuple[Any, ...] = ("", (4, 2), (1, 1.5), (5, 1.5, 1, 1.5), (5, 1, 1, 1, 1, 1))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
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
SIZE = (4.8, 3.2)  # inches; shown at this size, so that 9 points are 9 points

STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "grid.linewidth": 0.4,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    **dict.fromkeys(
        (
            "text.color",
            "axes.labelcolor",
            "axes.edgecolor",
            "xtick.color",
            "ytick.color",
            "grid.color",
        ),
        INK,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished figure.

    Attributes:
        name: of its files.
        title: its caption.
        alternative: what it shows, in words, for who cannot see it.
        note: how to read it.
        svg, png: its files' content.
    """

    name: str
    title: str
    alternative: str
    note: str
    svg: bytes
    png: bytes


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a variant is drawn."""

    colour: str
    dashes: Any
    marker: str

    @property
    def line(self) -> Any:
        """The dashes, as Matplotlib wants them."""
        return (0, self.dashes) if self.dashes else "-"


def looks(variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Look]:
    """Return how each variant of a study is drawn."""
    counts: dict[str, int] = {}
    result = {}
    for name, variant in variants.items():
        k = counts[variant["framework"]] = counts.get(variant["framework"], -1) + 1
        result[name] = Look(
            colour=COLOURS.get(variant["framework"], OTHER),
            dashes=DASHES[k % len(DASHES)],
            marker=MARKERS[k % len(MARKERS)],
        )
    return result


def new(width: float = SIZE[0], height: float = SIZE[1], **kwargs: Any) -> tuple[Figure, Any]:
    """Return a figure and its axes in the report's style."""
    sns.set_theme(style="ticks", rc=STYLE)
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained", **kwargs)
    return figure, axes


def finish(figure: Figure, name: str, title: str, alternative: str, note: str = "") -> Picture:
    """Render a figure and close it."""
    files = {}
    with mpl.rc_context({"svg.hashsalt": name}):
        for kind, options in (
            ("svg", {"metadata": {"Date": None, "Creator": None}}),
            ("png", {"dpi": 150, "facecolor": "white", "metadata": {"Software": None}}),
        ):
            stream = io.BytesIO()
            figure.savefig(stream, format=kind, **options)
            files[kind] = stream.getvalue()
            figure.set_layout_engine("none")  # laid out once is enough, and half of the time
    plt.close(figure)
    return Picture(name=name, title=title, alternative=alternative, note=note, **files)


def inline(picture: Picture) -> str:
    """Return a figure as SVG to be put into a page: page's text colour, ids of its own."""
    text = picture.svg.decode()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor")
    for framework, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{framework})")  # the page has a lighter one for dark
    text = re.sub(r"(font: [\d.]+px) [^\";]+", r"\1 system-ui, sans-serif", text)
    text = re.sub(r'\bid="', f'id="{picture.name}-', text)
    text = re.sub(r'href="#', f'href="#{picture.name}-', text)
    text = re.sub(r"url\(#", f"url(#{picture.name}-", text)
    label = _escape(f"{picture.title}. {picture.alternative}")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _escape(text: str) -> str:
    for a, b in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;")):
        text = text.replace(a, b)
    return text


def _grid(axes: Axes, axis: Any = "y") -> None:
    axes.grid(visible=True, axis=axis)
    axes.set_axisbelow(True)


def _legend(axes: Axes, columns: int = 3) -> None:
    """Put the legend above the axes, where it covers nothing."""
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=columns,
        borderaxespad=0.2,
        handlelength=2.2,
        columnspacing=1.2,
    )


# One figure a question ------------------------------------------------------------------------


def forest(comparisons: Sequence[Comparison], styles: Mapping[str, Look]) -> Picture | None:
    """Draw every verdict on time: ratio and 95% interval, a row a comparison."""
    rows = [c for c in comparisons if c.kind not in (NOT_COMPARABLE, NO_PAIR) and c.step_time]
    if not rows or len(rows) > MOST_ROWS:
        return None
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
        said.append(f"{c.candidate} over {c.baseline} {r.value:.2f}, {c.kind}")
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
    _grid(axes, "x")
    return finish(
        figure,
        "verdicts",
        "Step time against step time",
        "; ".join(said) + ".",
        "Left of 1, the variant named first is faster.",
    )


MOST_ROWS = 30
RATIO_TICKS = (
    (0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15, 1.2),
    (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.4, 1.7, 2, 2.5, 3),
    (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100),
)
"""Ticks of an axis of ratios, from the narrowest range to the widest."""


LOSS_TICKS = [m * 10.0**e for e in range(-6, 3) for m in (1, 2, 5)]


def loss_curves(workload: str, epochs: pd.DataFrame, styles: Mapping[str, Look]) -> Picture | None:
    """Draw training loss by epoch: median over seeds, band from lowest to highest."""
    if epochs.empty:
        return None
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
    axes.set_yticks([t for t in LOSS_TICKS if low <= t <= high])
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    _plain_log(axes.yaxis)
    _grid(axes)
    _legend(axes)
    return finish(
        figure,
        f"{workload}-loss",
        "Training loss over seeds",
        f"{'; '.join(ends)}.",
        "Median over seeds, band from lowest to highest. Curves that coincide are drawn over each "
        "other, the first the widest.",
    )


def _plain_log(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers."""
    axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: f"{v:g}"))
    axis.set_minor_locator(mpl.ticker.NullLocator())


def _powers(axis: Any) -> None:
    """Label a logarithmic axis with powers of ten, as text: typesetting them takes seconds."""
    axis.set_major_formatter(mpl.ticker.FuncFormatter(lambda v, _: power_of_ten(v)))
    axis.set_minor_locator(mpl.ticker.NullLocator())


def power_of_ten(value: float) -> str:
    """Return 1e-7 as 10⁻⁷."""
    return "10" + f"{np.log10(value):.0f}".translate(SUPERSCRIPTS)


SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def parity_curves(workload: str, verdict: Mapping[str, Any], styles: Mapping[str, Look]) -> Picture:
    """Draw each step's distance from the reference, with the envelope that it must stay in."""
    figure, axes = new(ncols=2, width=2 * SIZE[0])
    worst = []
    for precision, ax in zip(("float64", "float32"), axes, strict=True):
        floor = EQUAL[precision]
        limit = None
        for variant, comparison in verdict["comparisons"].items():
            envelope = comparison["curves"].get("float32_tolerance")
            if precision == "float32" and envelope:
                limit = np.array(envelope) if limit is None else np.maximum(limit, envelope)
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
        _grid(ax)
        _legend(ax)
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
    workload: str, curves: Sequence[tuple[str, str, np.ndarray, np.ndarray]]
) -> Picture | None:
    """Draw how far two variants' losses are apart during training, between and within frameworks.

    Args:
        curves: label, kind (`between`, `within` or `seeds`), steps ``(points,)`` and relative
            difference ``(points,)``.
    """
    if not curves:
        return None
    figure, axes = new()
    kinds = {
        "between": ("#7b3294", "-", "between frameworks"),
        "within": ("#008837", "--", "within a framework: noise floor"),
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
    axes.set(xlabel="Step", ylabel="Relative difference of the loss", yscale="log")
    _powers(axes.yaxis)
    _grid(axes)
    _legend(axes, 2)
    return finish(
        figure,
        f"{workload}-difference",
        "How far losses are apart",
        f"{'; '.join(said)}.",
        "At equal seed, median over seeds. Between frameworks is read against the noise floor: two "
        "variants of one framework, which differ by rounding alone.",
    )


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

    Args:
        censored: a boolean column; where it is False the dot is hollow and an arrow says "not yet".
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
        median, count, lost = float(np.median(x)), len(x), int((~full).sum())
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
        if not lost:
            axes.plot([median, median], [y - 0.32, y + 0.32], color=INK, linewidth=1.2)
        said.append(
            f"{label}: median {median:.4g} {unit} of {count} runs"
            + (f", {lost} of them censored" if lost else "")
        )
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlabel(f"{title} ({unit})" if unit else title)
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(6))
    _grid(axes, "x")
    note = "A dot a run, a line at the median."
    if any(len(group) > MOST_DOTS for _, _, group in filled):
        note = (
            f"A dot a run, a line at the median; of more than {MOST_DOTS} runs, evenly spaced ones."
        )
    return finish(
        figure,
        name,
        title,
        "; ".join(said) + ".",
        note + " Hollow with an arrow: censored, not met by then." if censored else note,
    )


def split_bars(workload: str, rows: Sequence[Mapping[str, Any]]) -> Picture | None:
    """Draw where the time of a run goes, as stacked bars."""
    if not rows:
        return None
    several = len({row["scale"] for row in rows}) > 1
    labels = [f"{r['variant']}, {r['scale']}" if several else r["variant"] for r in rows]
    figure, axes = new(width=2 * SIZE[0], height=max(1.9, 1.2 + 0.34 * len(rows)))
    left = np.zeros(len(rows))
    for (key, label), colour, hatch in zip(measures.SPLIT, SPLIT_COLOURS, HATCHES, strict=True):
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
    _grid(axes, "x")
    axes.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    totals = "; ".join(f"{a} {b:.3g} s" for a, b in zip(labels, left, strict=True))
    return finish(figure, f"{workload}-time-split", "Where the time of a run goes", f"{totals}.")


def scaling_lines(
    workload: str, rows: Sequence[Mapping[str, Any]], styles: Mapping[str, Look]
) -> Picture | None:
    """Draw throughput against processes, with perfect scaling as a thin line."""
    frame = pd.DataFrame(rows)
    if frame.empty or frame["world_size"].nunique() < 2:
        return None
    figure, axes = new()
    for variant, group in frame.groupby("variant", sort=False):
        look, group = styles[variant], group.sort_values("world_size")
        x, y = group["world_size"].to_numpy(float), group["examples_per_second"].to_numpy(float)
        axes.plot(x, y, color=look.colour, linestyle=look.line, marker=look.marker, label=variant)
        axes.plot(x, y[0] * x / x[0], color=look.colour, linewidth=0.6, alpha=0.6)
    axes.set(xlabel="Processes", ylabel="Throughput (examples/s)", xscale="log", yscale="log")
    worlds = sorted(frame["world_size"].unique())
    axes.set_xticks(worlds, [str(w) for w in worlds])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    _plain_log(axes.yaxis)
    _grid(axes)
    _legend(axes)
    said = "; ".join(
        f"{r['variant']} at {r['scale']} {r['efficiency']:.0%}" for r in rows if r["speedup"] != 1
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
    _grid(axes, "both")
    _legend(axes)
    return finish(
        figure,
        "performance-profile",
        "Performance profile over workloads and scales",
        f"{'; '.join(said)}.",
        "The share of problems on which a variant's step takes at most so many times the best "
        "one's (Dolan & Moré 2002): higher is better.",
    )
