"""Figures of a report. Every function returns a Matplotlib Figure that carries its own "simulated" label."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator

# Okabe and Ito's colours stay apart for every common kind of colour blindness.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SIMULATED_LABEL = "SIMULATED DATA - proves plumbing, not science"
SIMULATED_COLOUR = "#B30000"
STRIP_INCHES = 0.32
DPI = 130


def new_figure(width: float, height: float, *, simulated: bool, title: str = "") -> Figure:
    """A figure of `width` by `height` inches, below strips for a title and, on simulated data, the label.

    The strips are kept out of the layout, so that nothing can grow into them.
    """
    label, heading = (STRIP_INCHES if simulated else 0.0), (STRIP_INCHES if title else 0.0)
    total = height + label + heading
    layout = ConstrainedLayoutEngine(rect=(0, 0, 1, height / total))
    figure = Figure(figsize=(width, total), layout=layout, facecolor="white")
    if simulated:
        box: dict[str, Any] = {"facecolor": SIMULATED_COLOUR, "edgecolor": "none", "pad": 3}
        style: dict[str, Any] = {"color": "white", "weight": "bold", "fontsize": 8, "bbox": box}
        figure.text(0.5, 1 - label / 2 / total, SIMULATED_LABEL, ha="center", va="center", **style)
    if title:
        figure.text(0.5, (height + heading / 2) / total, title, ha="center", va="center", fontsize=10)
    return figure


def png(figure: Figure) -> bytes:
    """The figure as PNG; its artists are released afterwards."""
    buffer = io.BytesIO()
    # A date or a version in the file would make equal figures differ.
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    figure.clear()
    return buffer.getvalue()


def error_plot(
    rows: Sequence[dict[str, Any]],
    published: Sequence[dict[str, Any]],
    *,
    sets: Sequence[str],
    simulated: bool,
) -> Figure:
    """Balanced error of each configuration on each set with its interval, beside published values."""
    figure = new_figure(6.4, 4.0, simulated=simulated)
    axes = figure.subplots()
    names = list(dict.fromkeys(row["configuration"] for row in rows))
    others = list(dict.fromkeys(row["configuration"] for row in published))
    offsets = np.linspace(-0.3, 0.3, len(names) + len(others) + 2)[1:-1]
    drawn: list[Any] = [
        _error_series(axes, [row for row in rows if row["configuration"] == name], sets, offsets[i], i)
        for i, name in enumerate(names)
    ]
    for i, name in enumerate(others):
        errors = {
            row["set"]: 100 * row["balanced_error"] for row in published if row["configuration"] == name
        }
        places = np.arange(len(sets)) + offsets[len(names) + i]
        label = f"{name} (published{', not comparable' if simulated else ''})"
        style: dict[str, Any] = {
            "color": "#555555",
            "markerfacecolor": "none",
            "marker": MARKERS[-1 - i % 3],
            "linestyle": "none",
        }
        drawn.append(axes.plot(places, [errors.get(s, np.nan) for s in sets], label=label, **style)[0])
    axes.set(xticks=range(len(sets)), xticklabels=sets, ylabel="balanced error (%)", ylim=(0, None))
    axes.set_xlim(-0.5, len(sets) - 0.5)
    tidy(axes)
    # Below the axes, a legend never covers a point.
    figure.legend(handles=drawn, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _error_series(
    axes: Axes, rows: Sequence[dict[str, Any]], sets: Sequence[str], offset: float, index: int
) -> ErrorbarContainer:
    by_set = {row["set"]: row for row in rows}
    low, middle, high = (
        100 * np.array([by_set[s][key] for s in sets])
        for key in ("balanced_error_low", "balanced_error", "balanced_error_high")
    )
    # A percentile interval may miss the point estimate by a hair; errorbar refuses negative lengths.
    lengths = np.maximum([middle - low, high - middle], 0)
    style: dict[str, Any] = {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": "none",
    }
    places = np.arange(len(sets)) + offset
    label = rows[0]["configuration"]
    return axes.errorbar(places, middle, yerr=lengths, capsize=3, markersize=6, label=label, **style)


def tidy(axes: Axes) -> None:
    """Take the upper and right line away and draw a light grid of values."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)


def confusion_plot(counts: np.ndarray, class_names: Sequence[str], *, title: str, simulated: bool) -> Figure:
    """Row-normalised confusion matrix in percent, counts in small type."""
    counts = np.asarray(counts, float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = 100 * np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    small = len(class_names) <= 10
    texts = [
        [_percent_and_count(shares[t, p], counts[t, p] if small else None) for p in range(counts.shape[1])]
        for t in range(counts.shape[0])
    ]
    return _heat_map(
        shares,
        texts,
        class_names,
        title=title,
        simulated=simulated,
        limits=(0, 100),
        colours="Blues",
        unit="% of the true class, counts in brackets" if small else "% of the true class",
    )


def _percent_and_count(share: float, count: float | None) -> str:
    if np.isnan(share):
        return "undefined"
    text = f"{share:.1f}" if share and share < 99.95 else f"{share:.0f}"
    return text if count is None else f"{text}\n({count:.0f})"


def growth_plot(
    growth: np.ndarray, class_names: Sequence[str], *, title: str, largest: float, simulated: bool
) -> Figure:
    """Change of each share of the confusion matrix in percentage points.

    The colours reach to `largest` (a share), so that figures that are compared can have one scale.
    """
    points = 100 * np.asarray(growth, float)
    limit = max(100 * largest, 1.0)
    texts = [
        ["undefined" if np.isnan(v) else f"{v:+.1f}" if abs(v) >= 0.05 else "0" for v in row]
        for row in points
    ]
    return _heat_map(
        points,
        texts,
        class_names,
        title=title,
        simulated=simulated,
        limits=(-limit, limit),
        colours="PuOr_r",
        unit="change in percentage points",
    )


def _heat_map(
    values: np.ndarray,
    texts: list[list[str]],
    class_names: Sequence[str],
    *,
    title: str,
    simulated: bool,
    limits: tuple[float, float],
    colours: str,
    unit: str,
) -> Figure:
    written = len(class_names) <= 20
    size = max(4.2, 0.66 * len(class_names) + 1.6)
    figure = new_figure(size if written else size + 0.9, size, simulated=simulated)
    axes = figure.subplots()
    colour_map = matplotlib.colormaps[colours].with_extremes(bad="#dddddd")
    image = axes.imshow(np.ma.masked_invalid(values), cmap=colour_map, vmin=limits[0], vmax=limits[1])
    names = [textwrap.fill(name, 15) for name in class_names]
    places = range(len(names))
    axes.set(xlabel="predicted class", ylabel="true class", xticks=places, yticks=places)
    axes.set_xticklabels(names, rotation=40, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticklabels(names, fontsize=8)
    axes.set_title(f"{title}\n{unit}", fontsize=10)
    # Where the numbers are written, a colour bar would only cost width.
    if written:
        _write_cells(axes, image, values, texts)
    else:
        figure.colorbar(image, ax=axes, shrink=0.8)
    return figure


def _write_cells(axes: Axes, image: Any, values: np.ndarray, texts: list[list[str]]) -> None:
    for t, p in np.ndindex(values.shape):
        red, green, blue, _ = (
            image.cmap(image.norm(values[t, p])) if np.isfinite(values[t, p]) else (1, 1, 1, 1)
        )
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
        size = 5.5 if texts[t][p] == "undefined" else 8
        axes.text(
            p, t, texts[t][p], ha="center", va="center", fontsize=size, color="white" if dark else "black"
        )


def curves_plot(
    curves: Sequence[dict[str, Any]], *, ylabel: str, simulated: bool, logarithmic: bool = True
) -> Figure:
    """Metrics against training step: if `logarithmic`, on such a scale if all values are positive, else from 0.

    Each curve is {"group", "label", "steps", "values", "best", "style"}: a group has one colour, a label is
    named once, and a star marks the value at step `best` (NaN: none).
    """
    figure = new_figure(6.4, 3.8, simulated=simulated)
    axes = figure.subplots()
    groups = list(dict.fromkeys(curve["group"] for curve in curves))
    named: set[str] = set()
    for curve in curves:
        colour = COLOURS[groups.index(curve["group"]) % len(COLOURS)]
        label = curve["label"] if curve["label"] not in named else None
        named.add(curve["label"])
        axes.plot(
            curve["steps"], curve["values"], curve["style"], color=colour, label=label, lw=1.2, alpha=0.85
        )
        at = np.nonzero(curve["steps"] == curve["best"])[0]
        axes.plot(curve["steps"][at], curve["values"][at], "*", color=colour, ms=12, mec="black", mew=0.6)
    if logarithmic and all((curve["values"] > 0).all() for curve in curves):
        axes.set_yscale("log")
        for axis_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis_formatter("{x:g}")
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    elif logarithmic:
        axes.set_ylim(0, None)
    axes.set(xlabel="training step", ylabel=ylabel)
    tidy(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure
