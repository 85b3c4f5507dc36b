"""Figures of a retrieval report with a point per row or label: principal components, mean average precision."""

import re
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from coos.report import plots
from coos.report.retrieval_plots import GREY, readable

FEWEST_NAMED, MOST_NAMED = 3, 12  # labels in a plot; the latter also of batches in a legend
BEYOND = ("o", "^")  # markers once the colours are used up
NAME_HEIGHT, NAME_LENGTH = 0.085, 36  # of the axes, for a line of small type; characters


def components_plot(
    points: np.ndarray,
    explained: np.ndarray,
    batches: Sequence[str | None],
    is_control: np.ndarray,
    *,
    title: str = "",
    simulated: bool = False,
) -> Figure:
    """First two principal components (N, 2) twice: coloured by batch, and by control or treated."""
    figure = plots.new_figure(
        11, 4.2, simulated=simulated, title=readable(textwrap.shorten(title, 120, placeholder=" …"), 200)
    )
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    # In random order no batch covers the others only because it comes last in the table.
    order = np.random.default_rng(0).permutation(len(points))
    batches = [batches[i] for i in order]
    _by_batch(figure, left, np.asarray(points)[order], batches)
    _by_control(right, np.asarray(points)[order], np.asarray(is_control, bool)[order])
    for axes in (left, right):
        axes.set_xlabel(f"PC1 ({100 * explained[0]:.3g} % of the variance)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelleft=True)
        axes.set_ylabel(f"PC2 ({100 * explained[1]:.3g} % of the variance)")
    return figure


def _dots(count: int) -> dict[str, Any]:
    """Smaller and fainter dots, the more there are; pixels even in a vector format."""
    alpha = float(np.clip(2500 / max(count, 1), 0.12, 0.8))
    return {
        "s": float(np.clip(9000 / max(count, 1), 2.5, 16)),
        "alpha": alpha,
        "lw": 0,
        "rasterized": True,
    }


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts batch 10 after batch 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _by_batch(figure: Figure, axes: Axes, points: np.ndarray, batches: Sequence[str | None]) -> None:
    names = sorted({name for name in batches if name is not None}, key=_natural)
    code = {name: position for position, name in enumerate(names)} | {None: -1}
    codes = np.array([code[name] for name in batches], int)
    style = _dots(len(points))
    unknown = codes < 0
    axes.scatter(*points[unknown].T, color=GREY, **style)
    axes.set_title(_batch_title(len(names), int(unknown.sum())), fontsize=10)
    if not names:
        return
    if len(names) <= MOST_NAMED:
        return _few_batches(axes, points, codes, names, style)
    colours = matplotlib.colormaps["viridis"].resampled(len(names))
    norm = BoundaryNorm(np.arange(len(names) + 1) - 0.5, len(names))
    known = points[~unknown]
    axes.scatter(known[:, 0], known[:, 1], c=codes[~unknown], cmap=colours, norm=norm, **style)
    bar = figure.colorbar(matplotlib.cm.ScalarMappable(norm, colours), ax=axes, pad=0.02, spacing="uniform")
    ticks = np.unique(np.linspace(0, len(names) - 1, 6).round().astype(int)).tolist()
    bar.set_ticks(ticks, labels=[readable(textwrap.shorten(names[i], 40), 16) for i in ticks])
    bar.ax.tick_params(labelsize=7, length=0)
    bar.ax.minorticks_off()


def _batch_title(count: int, unknown: int) -> str:
    if not count:
        return "by batch (no batch is known)"
    text = f"by batch ({count} batch{'es' if count > 1 else ''}"
    return text + (f"; grey: {unknown:,} rows of unknown batch)" if unknown else ")")


def _few_batches(
    axes: Axes, points: np.ndarray, codes: np.ndarray, names: list[str], style: dict[str, Any]
) -> None:
    colours, handles = plots.COLOURS, []
    for turn, marker in enumerate(BEYOND):
        chosen = (codes >= 0) & (codes // len(colours) == turn)
        each = [colours[code % len(colours)] for code in codes[chosen]]
        axes.scatter(points[chosen, 0], points[chosen, 1], c=each, marker=marker, **style)
    for i, name in enumerate(names):
        marker = BEYOND[i // len(colours)]
        handles.append(_handle(readable(name, 18), colours[i % len(colours)], marker))
    _side_legend(axes, handles)


def _handle(label: str, color: str, marker: str = "o") -> Line2D:
    return Line2D([], [], ls="none", marker=marker, color=color, ms=5, mew=0, label=label)


def _side_legend(axes: Axes, handles: list[Line2D]) -> None:
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8, handletextpad=0.2
    )


def _by_control(axes: Axes, points: np.ndarray, is_control: np.ndarray) -> None:
    style = _dots(len(points))
    blue, orange = plots.COLOURS[0], plots.COLOURS[4]
    axes.scatter(*points[~is_control].T, color=orange, **style)
    # Few among many, controls are drawn last and stronger.
    axes.scatter(
        *points[is_control].T, color=blue, **style | {"alpha": max(_dots(is_control.sum())["alpha"], 0.3)}
    )
    others = "treated" if is_control.any() else "all rows"
    counts = {"control": int(is_control.sum()), others: int((~is_control).sum())}
    axes.set_title("control and treated" if is_control.any() else "no row is known as a control", fontsize=10)
    colours = {"control": blue, others: orange}
    _side_legend(axes, [_handle(f"{k}\n({counts[k]:,})", colours[k]) for k in counts if counts[k]])


def labels_plot(
    values: np.ndarray,
    p_values: np.ndarray,
    names: Sequence[str],
    *,
    title: str = "",
    level: float = 0.05,
    simulated: bool = False,
) -> Figure:
    """-log10 of the corrected p-value against mean average precision, a point per label.

    The significant labels with the smallest p-values (of equal ones, the highest precision) are named beside the
    plot, three labels at least; labels without a value are counted below it.
    """
    values, p_values = np.asarray(values, float), np.asarray(p_values, float)
    known = np.isfinite(values) & np.isfinite(p_values)
    figure = plots.new_figure(7.4, 4.2, simulated=simulated)
    axes = figure.subplots()
    y = -np.log10(np.where(known, p_values, 1))
    for chosen, color, label in (
        (known & (p_values < level), plots.COLOURS[0], f"corrected p < {level:g}"),
        (known & (p_values >= level), GREY, "others"),
    ):
        axes.scatter(
            values[chosen], y[chosen], s=22, color=color, alpha=0.75, lw=0, label=f"{label}: {chosen.sum()}"
        )
    axes.axhline(-np.log10(level), color="black", ls=":", lw=1.2, label=f"p = {level:g}")
    axes.margins(x=0.06, y=0.08)
    axes.set_ylim(bottom=min(-0.05, axes.get_ylim()[0]))
    missing = f"\nlabels without a value: {(~known).sum()}" if (~known).any() else ""
    axes.set(xlabel=f"mean average precision{missing}", ylabel="-log10 corrected p")
    axes.set_title(readable(title, 70), fontsize=10)
    plots.tidy(axes)
    count = int(np.clip((known & (p_values < level)).sum(), FEWEST_NAMED, MOST_NAMED))
    _name_best(axes, values, y, names, np.flatnonzero(known), count=count)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _name_best(
    axes: Axes, x: np.ndarray, y: np.ndarray, names: Sequence[str], known: np.ndarray, *, count: int
) -> None:
    """Names in a column to the right, joined to their points: no two overlap, however close the points are."""
    best = known[np.lexsort((-x[known], -y[known]))][:count]
    low, high = axes.get_ylim()
    for i, height in zip(best, _apart((y[best] - low) / (high - low)), strict=True):
        name = str(names[i])
        text = readable(
            name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 2].rstrip() + " …", NAME_LENGTH
        )
        axes.annotate(
            text,
            (x[i], y[i]),
            xytext=(1.05, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            arrowprops={
                "arrowstyle": "-",
                "color": "#9a9a9a",
                "lw": 0.6,
                "shrinkA": 2,
                "shrinkB": 2,
                "relpos": (0, 0.5),
            },
        )


def _apart(heights: np.ndarray) -> list[float]:
    """Falling heights (fractions of the axes), moved as little as keeps names apart and inside."""
    found: list[float] = []
    for i, height in enumerate(heights):
        room = (len(heights) - 1 - i) * NAME_HEIGHT  # for the names below
        lowest = max(float(height), room)
        found.append(min(lowest, found[-1] - NAME_HEIGHT if found else 0.985))
    return found
