"""Figures of a study of representations."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from coos.report import plots
from coos.report.comparison import Comparison
from coos.report.scores import Row

COLUMNS = 3


def panels(listed: Sequence[Row], comparison: Comparison) -> Figure:
    """Balanced error by set, a panel for each kind of features, a line for each model; published values hollow."""
    features = list(dict.fromkeys(row["features"] for row in listed))
    models = list(dict.fromkeys(row["model"] for row in listed))
    down = math.ceil(len(features) / COLUMNS)
    figure = plots.new_figure(3.2 * COLUMNS, 2.5 * down + 0.5, simulated=comparison.simulated)
    grid = figure.subplots(down, COLUMNS, sharey=True, squeeze=False)
    for axes in grid.flat[len(features) :]:
        axes.set_visible(False)
    for axes, name in zip(grid.flat, features, strict=False):
        mine = [row for row in listed if row["features"] == name]
        _panel(axes, mine, comparison.sets, models)
        axes.set_title(name, fontsize=9)
    top = np.nanmax([[row["balanced_error_high"], row["balanced_error"]] for row in listed])
    grid[0, 0].set_ylim(0, 105 * top)  # of all panels: they share it
    for row in grid:
        row[0].set_ylabel("balanced error (%)", fontsize=8)
    figure.legend(
        handles=[_key(k, model) for k, model in enumerate(models)],
        loc="outside lower center",
        ncols=len(models),
        frameon=False,
        fontsize=9,
    )
    return figure


def _panel(axes: Axes, rows: Sequence[Row], sets: Sequence[str], models: Sequence[str]) -> None:
    for k, model in enumerate(models):
        mine = {row["set"]: row for row in rows if row["model"] == model}
        if not mine:
            continue
        low, middle, high, known = (
            100 * np.array([mine[s][key] for s in sets])
            for key in ("balanced_error_low", "balanced_error", "balanced_error_high", "published")
        )
        places = np.arange(len(sets)) + 0.12 * (k - (len(models) - 1) / 2)
        lengths = np.maximum([middle - low, high - middle], 0)
        style: dict[str, Any] = {"color": plots.COLOURS[k % 7], "marker": plots.MARKERS[k % 7]}
        axes.errorbar(places, middle, yerr=lengths, capsize=2, markersize=4, lw=0.9, **style)
        axes.plot(places, known, ls="none", markerfacecolor="none", markersize=6, **style)
    axes.set(xticks=range(len(sets)), xlim=(-0.5, len(sets) - 0.5))
    axes.set_xticklabels(sets, fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    plots.tidy(axes)


def _key(number: int, label: str) -> Any:
    return Line2D([], [], color=plots.COLOURS[number % 7], marker=plots.MARKERS[number % 7], label=label)


def differences(rows: Sequence[Row], comparison: Comparison) -> Figure:
    """Difference of every method from the plain network, in percentage points, a panel for each set."""
    sets = [s for s in comparison.sets if any(row["set"] == s for row in rows)]
    names = list(dict.fromkeys(row["configuration"] for row in rows if not row["is_plain"]))
    height = 1.1 + 0.42 * len(names)
    figure = plots.new_figure(2.6 + 1.9 * len(sets), height, simulated=comparison.simulated)
    grid = figure.subplots(1, len(sets), sharey=True, sharex=True, squeeze=False)[0]
    places = -np.arange(len(names))
    for axes, set_name in zip(grid, sets, strict=True):
        mine = {row["configuration"]: row for row in rows if row["set"] == set_name}
        low, middle, high = (
            100 * np.array([mine[name][key] for name in names])
            for key in ("difference_low", "difference", "difference_high")
        )
        lengths = np.maximum([middle - low, high - middle], 0)
        axes.axvline(0, color="#777777", lw=0.8)
        axes.errorbar(middle, places, xerr=lengths, fmt="o", color=plots.COLOURS[0], capsize=3, markersize=5)
        axes.set_title(set_name, fontsize=9)
        axes.tick_params(axis="x", labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="#dddddd", linewidth=0.7)
        axes.set_axisbelow(True)
    grid[0].set_yticks(places, names, fontsize=9)
    figure.supxlabel("difference from the plain network (percentage points)", fontsize=9)
    return figure
