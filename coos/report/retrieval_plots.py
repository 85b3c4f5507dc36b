"""Figures of a retrieval report, from plain arrays. Every function returns a Matplotlib Figure."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from coos.evaluators.retrieval import BASELINE
from coos.report import plots

GREY = "#7a7a7a"
LINE_STYLES = ("-", "-.", (0, (1, 1.2)))
WIDTH, LEGEND_LINE = 6.4, 0.17
LOG_FROM = 20.0  # values that differ by such a factor are drawn on a logarithmic axis
LARGEST_LIST, SHOWN = 1000, 500  # of longer lists of neighbours the histogram shows the first ranks only
BIN = 5
TOP = 0.2


def readable(name: str, width: int = 36) -> str:
    """A name as Matplotlib shows it: long ones in several lines, dollar signs and a first underscore kept."""
    text = textwrap.fill(str(name), width) or "(no name)"
    return (" " + text if text.startswith("_") else text).replace("$", r"\$")


def styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour, marker and line of each table; the cell count baseline is grey and dashed."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        i = len(found) - (BASELINE in found)
        found[name] = {
            "color": plots.COLOURS[i % len(plots.COLOURS)],
            "marker": plots.MARKERS[i % len(plots.MARKERS)],
            "linestyle": LINE_STYLES[i // len(plots.COLOURS) % len(LINE_STYLES)],
        }
        if name == BASELINE:
            found[name] = {"color": GREY, "marker": ".", "linestyle": "--"}
    return found


def _with_legend(entries: Sequence[str], *, height: float, simulated: bool) -> tuple[Figure, Axes]:
    """A figure as much higher as its legend below needs, so that many tables do not squeeze the axes."""
    half = (len(entries) + 1) // 2
    columns = [entries[:half], entries[half:]]
    lines = max(sum(readable(entry).count("\n") + 1 for entry in column) for column in columns)
    figure = plots.new_figure(WIDTH, height + LEGEND_LINE * lines, simulated=simulated)
    return figure, figure.subplots()


def _legend(figure: Figure) -> None:
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)


def enrichment_plot(
    odds_ratios: Mapping[str, np.ndarray], percentiles: Sequence[float], *, simulated: bool = False
) -> Figure:
    """Odds ratio over the percentile of similarity, a line per table; (Q,) values each.

    Values that no axis shows are marked at its edge: ∞ at the top, "undefined" or, on a logarithmic axis, 0 at
    the bottom.
    """
    figure, axes = _with_legend([*odds_ratios, "chance"], height=3.6, simulated=simulated)
    order = np.argsort(percentiles)
    x = 100 * np.asarray(percentiles, float)[order]
    logarithmic = _spread(odds_ratios.values()) > LOG_FROM
    marked = 0
    for name, style in styles(list(odds_ratios)).items():
        y = np.asarray(odds_ratios[name], float)[order]
        shown = np.where(np.isfinite(y) & ((y > 0) | (not logarithmic)), y, np.nan)
        axes.plot(x, shown, **style, ms=5, lw=1.5, label=readable(name))
        place = {"color": style["color"], "row": marked}
        marked += not np.isfinite(shown).all()
        _at_edge(axes, x[np.isposinf(y)], "∞", top=True, **place)
        _at_edge(axes, x[np.isnan(y)], "undefined", **place)
        _at_edge(axes, x[(y == 0) & logarithmic], "0", **place)
    axes.axhline(1, color="black", ls=":", lw=1.2, label="chance (odds ratio 1)")
    axes.margins(y=0.14 + 0.06 * max(marked - 1, 0))
    if logarithmic:
        _logarithmic(axes)
    elif all((np.asarray(y, float) >= 0).all() for y in odds_ratios.values()):
        axes.set_ylim(0, None)
    axes.margins(x=0.06)
    axes.set(xlabel="percentile of the similarity of all pairs (%)", ylabel="odds ratio")
    if len(x) <= 10:
        axes.set_xticks(x, [f"{value:g}" for value in x])
    plots.tidy(axes)
    _legend(figure)
    return figure


def _spread(values: Any) -> float:
    """Largest by smallest of all finite values above 0."""
    joined = np.concatenate([np.asarray(value, float) for value in values])
    positive = joined[np.isfinite(joined) & (joined > 0)]
    return float(positive.max() / positive.min()) if len(positive) else 1.0


def _at_edge(axes: Axes, x: np.ndarray, text: str, *, color: str, row: int, top: bool = False) -> None:
    """Marks with a text at the upper or lower edge; those of other tables stand in other rows."""
    height = 0.965 - 0.045 * row if top else 0.03 + 0.045 * row
    for value in x:
        axes.plot(value, height, "^" if top else "x", color=color, ms=5, transform=axes.get_xaxis_transform())
        axes.annotate(
            text,
            (value, height),
            xycoords=axes.get_xaxis_transform(),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=color,
        )


def _logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_formatter("{x:,g}")
    # Over many decades, labels between the powers of ten would overlap.
    if high / low < 1000:
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.yaxis.set_minor_formatter("{x:,g}")
    else:
        axes.yaxis.set_minor_formatter(NullFormatter())


def precision_recall_plot(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ks: Sequence[int],
    *,
    chance: float = math.nan,
    simulated: bool = False,
) -> Figure:
    """Precision@K against recall@K, {table: (precision, recall)} with (K,) values each.

    K stands at the points: of every table but the baseline if these are up to three, else of the one that has
    the highest precision. `chance` is the precision of a random order.
    """
    entries = [*curves] + ["chance"] * (not math.isnan(chance))
    figure, axes = _with_legend(entries, height=3.8, simulated=simulated)
    numbered = [name for name in curves if name != BASELINE] or list(curves)
    if len(numbered) > 3:
        numbered = [max(numbered, key=lambda name: float(np.sum(curves[name][0])))]
    for name, style in styles(list(curves)).items():
        precision, recall = curves[name]
        axes.plot(recall, precision, **style, ms=5, lw=1.5, label=readable(name))
        if name in numbered:
            _write_ks(axes, recall, precision, ks, style["color"])
    if not math.isnan(chance):
        axes.axhline(chance, color="black", ls=":", lw=1.2, label=f"chance (precision {chance:.3g})")
    axes.margins(x=0.06, y=0.1)
    axes.set(xlabel="recall@K", ylabel="precision@K")
    axes.set_ylim(0, None)
    plots.tidy(axes)
    _legend(figure)
    return figure


def _write_ks(axes: Axes, x: np.ndarray, y: np.ndarray, ks: Sequence[int], color: str) -> None:
    for k, across, up in zip(ks, x, y, strict=True):
        axes.annotate(
            f"{k}", (across, up), xytext=(2, 4), textcoords="offset points", fontsize=7, color=color
        )


def accumulated_hits(ranks: np.ndarray, num_neighbors: float, *, bins: int = 100) -> np.ndarray:
    """Share of all hits in the first 0, 1, ..., 100 % of the list minus what chance gives, (bins + 1,).

    Ranks count from 0; they are placed in the middle of their slots, so that chance gives 0 on average.
    """
    edges = np.linspace(0, 1, bins + 1)
    places = np.sort(np.minimum((np.asarray(ranks, float) + 0.5) / num_neighbors, 1))
    return np.searchsorted(places, edges, side="right") / max(len(places), 1) - edges


def hit_curves_plot(curves: Mapping[str, np.ndarray], *, top: float = TOP, simulated: bool = False) -> Figure:
    """`accumulated_hits` of all tables over the percentage of the list; the first `top` of it is shaded."""
    names = list(curves)
    figure, axes = _with_legend([*names, "top", "chance"], height=3.6, simulated=simulated)
    axes.axvspan(0, 100 * top, color="#e6eef5", label=f"first {100 * top:g} %: the hit score")
    for name, style in styles(names).items():
        y = np.asarray(curves[name])
        x = np.linspace(0, 100, len(y))
        line = {**style, "marker": style["marker"] if len(names) > 7 else None}
        axes.plot(x, y, **line, ms=4, markevery=10, lw=1.5, label=readable(name))
    axes.axhline(0, color="black", ls=":", lw=1.2, label="chance")
    axes.set(xlabel="% of the list of neighbours", ylabel="share of hits above chance", xlim=(0, 100))
    plots.tidy(axes)
    _legend(figure)
    return figure


def hit_histogram(
    ranks: np.ndarray, num_neighbors: float, *, name: str = "", simulated: bool = False
) -> Figure:
    """How many hits stand at which rank, in bins of five, and what chance gives; of long lists the first 500."""
    ranks = np.asarray(ranks, float)
    last = num_neighbors if num_neighbors <= LARGEST_LIST else SHOWN
    edges = np.arange(0, last + BIN, BIN)
    figure, axes = _with_legend(["hits", "chance"], height=3.2, simulated=simulated)
    colour = styles([name])[name]["color"]
    axes.stairs(
        np.histogram(ranks[ranks < edges[-1]], edges)[0], edges, fill=True, color=colour, label="hits"
    )
    expected = BIN * len(ranks) / num_neighbors
    axes.axhline(expected, color="black", ls=":", lw=1.2, label=f"chance ({expected:.3g} per bin)")
    what = "" if last == num_neighbors else f"; the first {SHOWN} of {num_neighbors:,.0f}"
    axes.set(xlabel=f"rank of the hit, 0 = nearest (bins of {BIN}{what})", ylabel="hits", xlim=(0, edges[-1]))
    axes.set_title(readable(name, 60), fontsize=10)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    plots.tidy(axes)
    _legend(figure)
    return figure
