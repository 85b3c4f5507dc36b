"""Figures of a report on assay predictions, from plain arrays. Every function returns a Matplotlib Figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from coos.report import plots
from coos.report.assay_comparison import BASELINE
from coos.report.retrieval_plots import GREY, readable

FIRST, SECOND = plots.COLOURS[0], plots.COLOURS[1]
LIMITS = (-0.03, 1.03)


def box_plot(aurocs: Mapping[str, np.ndarray], *, simulated: bool = False) -> Figure:
    """AUROC (T,) of each model over assays: box of the quartiles, median, whiskers of 1.5 ranges, a dot per assay."""
    width = max(6.4, 1.6 + 0.95 * len(aurocs))
    figure = plots.new_figure(width, 4.4, simulated=simulated)
    axes = figure.subplots()
    generator = np.random.default_rng(0)
    labels = []
    for place, (name, values) in enumerate(aurocs.items()):
        known = values[~np.isnan(values)]
        colour = GREY if name == BASELINE else plots.COLOURS[place % len(plots.COLOURS)]
        shift = generator.uniform(-0.22, 0.22, len(known))
        axes.scatter(place + shift, known, s=9, color=colour, alpha=0.55, lw=0, rasterized=True)
        labels.append(f"{readable(name, 14)}\n({len(known)})")
        if len(known):
            line = {"color": "black", "lw": 1.1}
            style: dict[str, Any] = {"boxprops": line, "whiskerprops": line, "capprops": line}
            medians = {"color": colour, "lw": 3}
            axes.boxplot(known, positions=[place], widths=0.6, showfliers=False, medianprops=medians, **style)
    axes.axhline(0.5, color="black", ls=":", lw=1)
    axes.set(ylabel="AUC", ylim=LIMITS, xlim=(-0.6, len(aurocs) - 0.4))
    axes.set_xticks(range(len(aurocs)), labels, fontsize=8)
    plots.tidy(axes)
    return figure


def scatter_plot(
    x: np.ndarray,
    y: np.ndarray,
    *,
    names: tuple[str, str],
    x_better: np.ndarray,
    y_better: np.ndarray,
    simulated: bool = False,
) -> Figure:
    """AUROC (T,) of two models, a dot per assay; those in which one is significantly better are in its colour."""
    figure = plots.new_figure(4.9, 5.2, simulated=simulated)
    axes = figure.subplots()
    known = ~np.isnan(x) & ~np.isnan(y)
    axes.plot([0, 1], [0, 1], color="#9a9a9a", lw=1)
    groups = (
        (known & ~x_better & ~y_better, "#a5a5a5", "o", "no significant difference"),
        (known & x_better, FIRST, "s", f"{names[0]} better"),
        (known & y_better, SECOND, "^", f"{names[1]} better"),
    )
    for chosen, colour, marker, text in groups:
        label = f"{readable(text, 44)}: {chosen.sum()}"
        style: dict[str, Any] = {"color": colour, "marker": marker, "label": label}
        axes.scatter(x[chosen], y[chosen], s=20, alpha=0.8, lw=0, **style)
    labels = [f"AUC of {readable(name, 40)}" for name in names]
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=LIMITS, ylim=LIMITS, aspect="equal")
    plots.tidy(axes)
    axes.grid(axis="x", color="#dddddd", linewidth=0.7)
    figure.legend(loc="outside lower center", ncols=1, frameon=False, fontsize=8)
    return figure


def examples_plot(
    rows: Sequence[tuple[str, Sequence[tuple[np.ndarray, str]]]],
    colours: Sequence[tuple[str, tuple[float, float, float]]],
    *,
    columns: int,
    title: str,
    simulated: bool = False,
) -> Figure:
    """Rows of pictures with a text below each; `rows` are (text, [((H, W, 3) picture, text)]), at most `columns` each.

    `colours` are (channel, colour) of the legend.
    """
    shown = [picture for _, pictures in rows for picture, _ in pictures]
    shape = shown[0].shape[0] / shown[0].shape[1] if shown else 1.0
    side = 2.5
    size = (side * columns + 0.3, (side * shape + 0.62) * len(rows) + 0.35)
    figure = plots.new_figure(*size, simulated=simulated, title=readable(title, 110))
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (text, pictures) in zip(grid, rows, strict=True):
        line[0].set_title(text, fontsize=8, loc="left", weight="bold")
        for axes in line:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for axes, (picture, below) in zip(line, pictures, strict=False):
            axes.imshow(picture)
            axes.set_xlabel(below, fontsize=7, loc="left", parse_math=False)
        if not pictures:
            line[0].text(0.02, 0.5, "none", fontsize=8, transform=line[0].transAxes)
    handles = [
        Line2D([], [], ls="none", marker="s", color=colour, ms=7, mec="black", mew=0.4, label=readable(name))
        for name, colour in colours
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8)
    return figure
