"""Training curves: what the runs recorded while they learned."""

import math
from typing import Any

import numpy as np

from coos.report import html, plots
from coos.report.comparison import Comparison
from coos.report.folder import Folder
from coos.workdir import Run


def curve(run: Run, split: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of a metric that was recorded during training; the last row of a step counts.

    Rows of other data sets, which the run was judged on later, are no part of it.
    """
    wanted = (run.dataset["name"], split, metric)
    rows = [row for row in run.rows if (row["dataset"], row["split"], row["metric"]) == wanted]
    points = sorted({row["step"]: row["value"] for row in rows if row["step"] is not None}.items())
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.asarray(steps, float), np.asarray(values, float)


def best_step(run: Run) -> float:
    """The step whose parameters were kept, NaN if the run recorded none."""
    return next((row["value"] for row in reversed(run.rows) if row["metric"] == "best_step"), math.nan)


def section(folder: Folder, comparison: Comparison) -> str:
    """Loss and validation error against the step, as HTML."""
    losses = _curves(comparison, "train", "loss", "-")
    losses += _curves(comparison, "validation", "cross_entropy", "--")
    errors = _curves(comparison, "validation", "balanced_error", "-", scale=100)
    panels = (
        ("loss", "loss, cross-entropy (nats)", losses),
        ("validation_error", "balanced error on validation (%)", errors),
    )
    figures = [_figure(folder, comparison, *panel) for panel in panels if panel[2]]
    return html.grid(figures) if figures else html.paragraph("The runs recorded no training curves.")


def _figure(
    folder: Folder, comparison: Comparison, name: str, ylabel: str, curves: list[dict[str, Any]]
) -> str:
    starred = any(curve["best"] in curve["steps"] for curve in curves)
    plot = plots.curves_plot(curves, ylabel=ylabel, simulated=comparison.simulated)
    caption = "One line per seed." + (" A star marks the step that was kept." if starred else "")
    alt = f"{ylabel} against training step for {', '.join(comparison.configurations)}"
    return folder.figure(f"training_{name}", plot, alt=alt, caption=caption)


def _curves(
    comparison: Comparison, split: str, metric: str, style: str, *, scale: float = 1.0
) -> list[dict[str, Any]]:
    curves = []
    for run in comparison.runs:
        steps, values = curve(run, split, metric)
        # The step is chosen by what happens on validation cells, so only their curves carry the star.
        best = best_step(run) if split == "validation" else math.nan
        shown = {"steps": steps, "values": scale * values, "best": best, "style": style}
        if len(steps):
            curves.append({"group": run.name, "label": f"{run.name}, {split}", **shown})
    return curves
