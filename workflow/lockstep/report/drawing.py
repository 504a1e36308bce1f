"""How figures are drawn.

Colour is the framework, line and marker are the variant, everywhere the same. Text and axes are
drawn in `INK` and become the page's own text colour where a figure is inlined, so that one figure
serves light and dark pages; text stays text.
"""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl

mpl.use("agg")

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lockstep.report.picture import INK, PALETTE, Picture

LINES = ("-", *((0, dashes) for dashes in ((4, 2), (1, 1.5), (5, 1.5, 1, 1.5), (5, 1, 1, 1, 1, 1))))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SIZE = (4.8, 3.2)  # inches; shown at this size, so that 9 points are 9 points
WIDE = 2 * SIZE[0]

STYLE = {
    "font.size": 9,
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.8),
    **dict.fromkeys(("axes.titlesize", "axes.labelsize"), 9),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 8.5),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 3),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), INK),
    "grid.linewidth": 0.4,
    "grid.alpha": 0.3,
}


Look = Mapping[str, Any]
"""What Matplotlib takes: a variant's colour, line style and marker."""
Looks = Mapping[str, Look]  # by variant


def looks(variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Look]:
    """Return how each variant of a study is drawn."""
    counts, result = Counter[str](), dict[str, Look]()
    for name, variant in variants.items():
        framework = variant["framework"]
        k = counts[framework]
        counts[framework] += 1
        style = {"linestyle": LINES[k % len(LINES)], "marker": MARKERS[k % len(MARKERS)]}
        result[name] = {"color": PALETTE[framework], **style}
    return result


def points(look: Look, **more: Any) -> dict[str, Any]:
    """Return a look of markers alone."""
    return {**look, "linestyle": "none", **more}


def new(width: float = SIZE[0], height: float = SIZE[1], **kwargs: Any) -> tuple[Figure, Any]:
    """Return a figure and its axes in the report's style."""
    sns.set_theme(style="ticks", rc=STYLE)
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained", **kwargs)
    return figure, axes


def finish(figure: Figure, title: str, words: Sequence[str], note: str = "") -> Picture:
    """Render a figure and close it.

    Args:
        words: what it shows, for who cannot see it.
    """
    files: dict[str, Any] = {}
    figure.draw_without_rendering()
    figure.set_layout_engine(None)  # laid out once is enough, and half of the time
    with mpl.rc_context({"svg.hashsalt": title}):
        for kind, options in (
            ("svg", {"metadata": {"Date": None, "Creator": None}}),
            ("png", {"dpi": 150, "facecolor": "white", "metadata": {"Software": None}}),
        ):
            stream = io.BytesIO()
            figure.savefig(stream, format=kind, **options)
            files[kind] = stream.getvalue()
    plt.close(figure)
    wide, text = figure.get_figwidth() > SIZE[0], f"{'; '.join(words)}."
    return Picture(title=title, alternative=text, note=note, wide=wide, **files)


def panel(axes: Axes, axis: Any = "y", *, width: int | None = 55, **labels: Any) -> None:
    """Label axes, draw faint grid lines behind everything, and put the legend above.

    Args:
        width: of the axes, in characters: the legend has as many columns as are not cut off, at
            most four; None for no legend.
        labels: such as ``xlabel`` and ``yscale``.
    """
    axes.set(**labels)
    axes.grid(visible=True, axis=axis)
    axes.set_axisbelow(True)
    names = axes.get_legend_handles_labels()[1]
    if names and width:
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(-0.02, 1.0),
            ncols=min(4, max(1, width // (max(map(len, names)) + 5))),
            borderaxespad=0.2,
            handlelength=2.2,
            columnspacing=1.2,
        )


def rows(axes: Axes, labels: Sequence[str], xlabel: str) -> None:
    """Label the rows of a figure, the first on top."""
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    panel(axes, "x", xlabel=xlabel, width=None)


def plain(axis: Any) -> None:
    """Label a logarithmic axis with plain numbers: 1, 2 and 5 of each power of ten.

    More of them where it spans less, and even steps where it spans less than a factor of two, so
    that it has two labels at least; 1 is among them where it is in sight.
    """
    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if high >= 10 * low else (1, 1.5, 2, 3, 4, 5, 6, 8)
    even = mpl.ticker.MaxNLocator(8, steps=[1, 2, 5, 10])
    axis.set_major_locator(even if high < 2 * low else mpl.ticker.LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(mpl.ticker.NullLocator())
