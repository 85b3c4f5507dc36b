"""The page that shows how a classifier's errors grow from a reference set to sets with more shift."""

import json
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from coos.report import comparison as comparisons
from coos.report import html, pictures, plots, scores, summary, tables, training
from coos.report.comparison import Comparison
from coos.report.folder import Folder
from coos.report.scores import Row, Samples
from coos.workdir import Run

LARGEST = 10


def write(
    out: str | os.PathLike,
    runs: Sequence[Run],
    *,
    images: pictures.Images | None = None,
    num_resamples: int = 1000,
    cells: int = 3,
    mistakes: int = 8,
    seed: int = 0,
) -> pathlib.Path:
    """Write `index.html`, `figures/*.png` and `tables/*.csv` to `out`; return the path of the page.

    Runs with the same `config["run"]` are seeds of one configuration; configurations stand side by side.
    `images(set name)` gives a set's pictures (None: a page without pictures of cells). `cells` are shown per
    class and set, `mistakes` per configuration and set; `seed` draws cells and resamples. ValueError says
    which runs do not belong together.
    """
    comparison = comparisons.compare(runs)
    folder = Folder(pathlib.Path(out))
    matrices = scores.confusions(comparison)
    errors = scores.error_rows(comparison, matrices, num_resamples=num_resamples, seed=seed)
    classes = scores.class_rows(comparison, matrices)
    grown = scores.growth_rows(comparison, matrices)
    sources = pictures.load(comparison, images)
    sections = [
        ("Errors", _errors(folder, comparison, errors, num_resamples)),
        ("Confusion matrices", _confusions(folder, comparison, matrices)),
        ("Sensitivity and precision", _classes(folder, comparison, classes)),
        ("What grew", _growth(folder, comparison, matrices, grown)),
        ("Training", training.section(folder, comparison)),
        (
            "Cells of each class and set",
            pictures.cells_section(folder, comparison, sources, count=cells, seed=seed),
        ),
        ("Worst confident mistakes", pictures.mistakes_section(folder, comparison, sources, count=mistakes)),
        ("Configuration and versions", _configs(comparison)),
    ]
    lead = html.paragraph(summary.paragraph(comparison, errors, classes, grown), css="summary")
    text = html.page(
        _title(comparison),
        lead=lead + _warnings(comparison),
        sections=sections,
        footer=comparisons.footer(comparison.runs),
        banner=plots.SIMULATED_LABEL if comparison.simulated else "",
    )
    return folder.page(text)


def _title(comparison: Comparison) -> str:
    config = comparison.runs[0].config
    study = config.get("study", comparison.runs[0].dataset["name"])
    return config["report"].get("title") or f"{study}: errors under covariate shift"


def _warnings(comparison: Comparison) -> str:
    """What a reader must know first: sets not evaluated, runs that differ in more than the seed."""
    texts = []
    wanted = comparison.runs[0].config["report"].get("sets") or ()
    missing = [name for name in wanted if name not in comparison.sets]
    if missing:
        texts.append(f"Not evaluated: {', '.join(missing)}.")
    for name, positions in comparison.configurations.items():
        keys = comparisons.differing_settings([comparison.runs[i] for i in positions])
        if keys:
            texts.append(f"The runs of {name} differ in more than the seed: {', '.join(keys)}.")
    return "".join(html.paragraph(text, css="warning") for text in texts)


def _errors(folder: Folder, comparison: Comparison, rows: list[Row], num_resamples: int) -> str:
    published = scores.published_rows(comparison)
    folder.csv("errors", rows, tables.ERROR_COLUMNS)
    if published:
        folder.csv("published", published, tables.PUBLISHED_COLUMNS)
    figure = folder.figure(
        "errors",
        plots.error_plot(rows, published, sets=comparison.sets, simulated=comparison.simulated),
        alt=f"Balanced error of each model on {', '.join(comparison.sets)}; numbers are in the table",
        caption="Balanced error per set. " + tables.interval_text(comparison, num_resamples),
    )
    table = tables.errors(rows, published, comparison, num_resamples=num_resamples)
    return table + figure + tables.details(rows)


def _confusions(folder: Folder, comparison: Comparison, matrices: Samples) -> str:
    figures = []
    for name, positions, set_name in comparison.pairs(comparison.sets):
        counts = scores.mean_confusion(matrices, set_name, positions)
        title = f"{name}, {set_name}"
        plot = plots.confusion_plot(
            counts, comparison.class_names, title=title, simulated=comparison.simulated
        )
        caption = f"{title}: % of each true class, counts in brackets" + comparison.mean_text(positions)
        if (counts.sum(axis=1) == 0).any():
            caption += " Undefined rows: no examples of that class."
        alt = f"Confusion matrix of {title}; its diagonal is the sensitivity in the table below"
        figures.append(folder.figure(f"confusion_{name}_{set_name}", plot, alt=alt, caption=caption))
        rows = [
            dict(zip(comparison.class_names, map(float, row), strict=True)) | {"true class": label}
            for label, row in zip(comparison.class_names, counts, strict=True)
        ]
        folder.csv(f"confusion_{name}_{set_name}", rows, ["true class", *comparison.class_names])
    return html.grid(figures)


def _classes(folder: Folder, comparison: Comparison, rows: list[Row]) -> str:
    folder.csv("classes", rows, tables.CLASS_COLUMNS)
    return tables.classes(rows, comparison)


def _growth(folder: Folder, comparison: Comparison, matrices: Samples, rows: list[Row]) -> str:
    reference = comparison.reference
    if not comparison.shifted:
        return html.paragraph(f"Needs {reference} (the reference) and at least one other test set.")
    folder.csv("growth", rows, tables.GROWTH_COLUMNS)
    title = f"the {LARGEST} confusions that grew most since {reference}"
    lists = []
    for name in comparison.configurations:
        mine = [row for row in rows if row["configuration"] == name]
        heading = f"<h3>{html.escape(name)}: {html.escape(title)}</h3>"
        lists.append(f"<div>{heading}{tables.growth_list(mine, count=LARGEST)}</div>")
    changes = {
        (name, set_name): scores.growth(comparison, matrices, set_name, positions)
        for name, positions, set_name in comparison.pairs(comparison.shifted)
    }
    # One scale for all figures: noise between alike sets must not look like the loss on another one.
    largest = max(float(np.nanmax(np.abs(change), initial=0)) for change in changes.values())
    note = html.paragraph(
        "In the figures, orange shares grew and purple ones shrank; on the diagonal that is sensitivity "
        "gained or lost. Each row sums to zero. All figures have the same colour scale."
    )
    return html.grid(lists) + note + html.grid(_growth_figures(folder, comparison, changes, largest))


def _growth_figures(
    folder: Folder, comparison: Comparison, changes: dict[tuple[str, str], np.ndarray], largest: float
) -> list[str]:
    figures = []
    for (name, set_name), change in changes.items():
        title = f"{name}, {set_name} minus {comparison.reference}"
        plot = plots.growth_plot(
            change, comparison.class_names, title=title, largest=largest, simulated=comparison.simulated
        )
        caption = f"{title}: change in percentage points."
        if np.isnan(change).any():
            caption += " Undefined rows: one of the two sets has no examples of that class."
        alt = f"Change of the confusion matrix, {title}; the largest changes are in the list above"
        figures.append(folder.figure(f"growth_{name}_{set_name}", plot, alt=alt, caption=caption))
    return figures


def _configs(comparison: Comparison) -> str:
    parts = []
    for run in comparison.runs:
        text = {"config": run.config, "dataset": run.dataset, "versions": run.versions}
        title = f"{run.name}, seed {run.seed}"
        parts.append(html.details(title, html.preformatted(json.dumps(text, indent=2, default=str))))
    return "".join(parts)
