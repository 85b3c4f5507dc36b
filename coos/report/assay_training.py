"""Training curves of assay predictors: what the runs recorded while they learned."""

import math
from typing import Any

from coos.report import html, plots, training
from coos.report.assay_comparison import Comparison
from coos.report.folder import Folder
from coos.report.retrieval_plots import readable


def section(folder: Folder, comparison: Comparison) -> str:
    """Validation AUC and losses against the step, as HTML."""
    losses = _curves(comparison, "train", "loss", "-")
    losses += _curves(comparison, "validation", "cross_entropy", "--")
    aurocs = _curves(comparison, "validation", "mean_auroc", "-")
    panels = (
        ("validation_auc", "mean AUC on validation", aurocs, False),
        ("loss", "cross-entropy (nats)", losses, True),
    )
    figures = []
    for name, ylabel, curves, logarithmic in panels:
        if curves:
            plot = plots.curves_plot(
                curves, ylabel=ylabel, simulated=comparison.simulated, logarithmic=logarithmic
            )
            starred = any(curve["best"] in curve["steps"] for curve in curves)
            caption = "One line per seed." + (" A star marks the step that was kept." if starred else "")
            alt = f"{ylabel} against training step"
            figures.append(folder.figure(f"training_{name}", plot, alt=alt, caption=caption))
    return html.grid(figures) if figures else html.paragraph("The runs recorded no training curves.")


def _curves(comparison: Comparison, split: str, metric: str, style: str) -> list[dict[str, Any]]:
    curves = []
    for run in comparison.runs:
        steps, values = training.curve(run, split, metric)
        # The step is chosen by what happens on validation, so only those curves carry the star.
        best = training.best_step(run) if split == "validation" else math.nan
        shown = {"steps": steps, "values": values, "best": best, "style": style}
        if len(steps):
            curves.append({"group": run.name, "label": readable(f"{run.name}, {split}", 38), **shown})
    return curves
