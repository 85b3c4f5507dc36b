"""The page of a study of representations: all classifiers on all features and sets, and methods against the shift.

Lu et al. 2019, Table 3 and sections 3.2 to 3.4: the table beside the published one, the confusions that grow, and,
below the table, what methods against covariate shift change for a network.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from coos import workdir as work
from coos.report import comparison as comparisons
from coos.report import html, plots, representation_plots, representation_tables, scores, tables
from coos.report.comparison import Comparison
from coos.report.folder import Folder
from coos.report.scores import Row, Samples
from coos.workdir import Run

LARGEST = 12
NOTE = "fit.json"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of the table: features and model, the folders of its seeds, and what it is called in the paper.

    The best row of each `method` is printed in bold; `published` is its key in the published table, or "".
    """

    features: str
    model: str
    method: str
    folders: tuple[pathlib.Path, ...]
    published: str = ""


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a page shows: rows of the table, runs to hold against a plain one, and a painted figure if there is one.

    `shift` maps titles to the folders of their seeds, the plain network first. `figure` is a Matplotlib figure.
    """

    config: Any
    entries: Sequence[Entry]
    shift: Mapping[str, Sequence[pathlib.Path]]
    painted: Any = None


def write(out: pathlib.Path, contents: Contents, *, num_resamples: int = 1000, seed: int = 0) -> pathlib.Path:
    """Write `index.html`, `figures/*.png` and `tables/*.csv` to `out`; return the path of the page.

    Raises ValueError where a folder is missing or runs do not belong together.
    """
    runs = [load(folder, contents) for entry in contents.entries for folder in entry.folders]
    comparison = comparisons.compare(runs)
    names = [load(entry.folders[0], contents).name for entry in contents.entries]
    folder = Folder(out)
    matrices = scores.confusions(comparison)
    errors = scores.error_rows(comparison, matrices, num_resamples=num_resamples, seed=seed)
    listed = representation_tables.rows(contents.entries, names, errors, _published(contents))
    chosen = representation_tables.chosen(listed, comparison)
    against = shift_rows(contents, num_resamples=num_resamples, seed=seed)
    sections = [
        ("Every classifier on every set", _table(folder, comparison, listed, contents, num_resamples)),
        ("Methods against the shift", _shift(folder, comparison, against, contents)),
        ("Which confusions grow", _growth(folder, comparison, matrices, chosen)),
        ("Confusion matrices", _confusions(folder, comparison, matrices, chosen)),
        ("Paired cell inpainting", _painted(folder, contents)),
        ("What was fitted", _fits(folder, contents)),
        ("Configuration and versions", _configuration(contents, runs)),
    ]
    lead = html.paragraph(representation_tables.summary(listed, chosen, against, comparison), css="summary")
    text = html.page(
        contents.config.report.title,
        lead=lead,
        sections=[(name, body) for name, body in sections if body],
        footer=comparisons.footer(comparison.runs),
        banner=plots.SIMULATED_LABEL if comparison.simulated else "",
    )
    return folder.page(text)


def load(folder: pathlib.Path, contents: Contents) -> Run:
    """A run of the study with its present report settings; ValueError if it is not there yet."""
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder}: not made yet; run the study without --report_only")
    run = work.load_run(folder)
    report = {**contents.config.report.to_dict(), "published": {}}
    return dataclasses.replace(run, config={**run.config, "report": report})


def _published(contents: Contents) -> dict[str, dict[str, float]]:
    return {name: dict(errors) for name, errors in contents.config.report.published.items()}


def _table(
    folder: Folder, comparison: Comparison, listed: list[Row], contents: Contents, num_resamples: int
) -> str:
    folder.csv("table3", listed, representation_tables.COLUMNS)
    figure = folder.figure(
        "table3",
        representation_plots.panels(listed, comparison),
        alt="Balanced error of every classifier on every set, a panel for each representation, as in the table",
        caption="Balanced error by set with its 95 % interval." + _hollow(listed, comparison),
    )
    source = contents.config.report.published_source
    note = tables.interval_text(comparison, num_resamples)
    return representation_tables.table(listed, comparison, source=source, note=note) + figure


def _hollow(listed: list[Row], comparison: Comparison) -> str:
    """What the hollow markers are, if there are any."""
    if all(math.isnan(row["published"]) for row in listed):
        return ""
    return f" Hollow: as published{'; NOT COMPARABLE, these cells are simulated' if comparison.simulated else ''}."


def shift_rows(contents: Contents, *, num_resamples: int, seed: int) -> list[Row]:
    """Balanced error of every method on every set, and its difference from the plain network, with intervals.

    Cells are drawn once for all methods, and seeds with the same numbers, so that differences are paired.
    """
    if len(contents.shift) < 2:
        return []
    comparison = comparisons.compare(
        [load(path, contents) for folders in contents.shift.values() for path in folders]
    )
    matrices = scores.confusions(comparison)
    samples = scores.error_samples(comparison, num_resamples=num_resamples, seed=seed)
    drawn = {
        name: scores.average_drawn_seeds(samples, positions, seed)
        for name, positions in comparison.configurations.items()
    }
    plain = next(iter(drawn))
    means = {
        (name, s): float(scores.errors_of(matrices, s, positions).mean())
        for name, positions, s in comparison.pairs(comparison.sets)
    }
    rows = []
    for name, positions, set_name in comparison.pairs(comparison.sets):
        low, high = scores.bounds(drawn[name][set_name])
        below, above = scores.bounds(drawn[name][set_name] - drawn[plain][set_name])
        rows.append(
            {
                "configuration": name,
                "set": set_name,
                "seeds": len(positions),
                "balanced_error": means[name, set_name],
                "balanced_error_low": low,
                "balanced_error_high": high,
                "difference": means[name, set_name] - means[plain, set_name],
                "difference_low": below,
                "difference_high": above,
                "is_plain": name == plain,
            }
        )
    return rows


def _shift(folder: Folder, comparison: Comparison, rows: list[Row], contents: Contents) -> str:
    if not rows:
        return html.paragraph("No method was run.")
    folder.csv("shift_methods", rows, representation_tables.SHIFT_COLUMNS)
    figure = folder.figure(
        "shift_methods",
        representation_plots.differences(rows, comparison),
        alt="Difference of each method from the plain network on each set; numbers are in the table",
        caption="Points left of zero: fewer errors than the plain network. Bars are 95 % intervals, paired over cells "
        "and seeds.",
    )
    about = html.paragraph(contents.config.shift.about)
    return about + representation_tables.shift_table(rows, comparison) + figure


def _growth(folder: Folder, comparison: Comparison, matrices: Samples, chosen: dict[str, Row]) -> str:
    if not comparison.shifted:
        return html.paragraph(f"Needs {comparison.reference} and at least one other test set.")
    rows = representation_tables.growth_rows(comparison, matrices)
    folder.csv("growth", rows, representation_tables.GROWTH_COLUMNS)
    every = scores.growth_rows(comparison, matrices)
    lists = []
    for method, row in chosen.items():
        mine = [found for found in every if found["configuration"] == row["configuration"]]
        heading = f"<h3>{html.escape(method)}: {html.escape(row['configuration'])}</h3>"
        lists.append(f"<div>{heading}{tables.growth_list(mine, count=5)}</div>")
    text = html.paragraph(
        "First over all rows of the table together; below, the five largest of the row of each representation that is "
        f"best on {comparison.reference}."
    )
    return text + representation_tables.growth_table(rows, comparison, count=LARGEST) + html.grid(lists)


def _confusions(folder: Folder, comparison: Comparison, matrices: Samples, chosen: dict[str, Row]) -> str:
    """Figures of the best row of each representation; tables of all rows go to files."""
    figures = []
    shown = {row["configuration"] for row in chosen.values()}
    sets = [name for name in comparison.sets if name not in comparisons.FROM_TRAINING]
    for name, positions, set_name in comparison.pairs(sets):
        counts = scores.mean_confusion(matrices, set_name, positions)
        rows = [
            dict(zip(comparison.class_names, map(float, row), strict=True)) | {"true class": label}
            for label, row in zip(comparison.class_names, counts, strict=True)
        ]
        folder.csv(f"confusion_{name}_{set_name}", rows, ["true class", *comparison.class_names])
        if name in shown:
            title = f"{name}, {set_name}"
            plot = plots.confusion_plot(
                counts, comparison.class_names, title=title, simulated=comparison.simulated
            )
            caption = f"{title}: % of each true class, counts in brackets" + comparison.mean_text(positions)
            alt = f"Confusion matrix of {title}; it is in the folder of tables too"
            figures.append(folder.figure(f"confusion_{name}_{set_name}", plot, alt=alt, caption=caption))
    text = html.paragraph(
        f"Of the row of each representation that is best on {comparison.reference}; those of all rows are in the "
        "folder tables."
    )
    return text + html.grid(figures)


def _painted(folder: Folder, contents: Contents) -> str:
    if contents.painted is None:
        return ""
    caption = (
        "What the self-supervised network learned to do: from a source cell and the marker of another cell of its "
        "group, paint that cell's protein. Each channel of each cell from its minimum to its maximum."
    )
    alt = "Source cells, nuclei of target cells, their proteins, and the predictions of them"
    return folder.figure("inpainting", contents.painted, alt=alt, caption=caption)


def _fits(folder: Folder, contents: Contents) -> str:
    """What the notes of the classifiers say: chosen settings, optimum reached, time."""
    rows = []
    for entry in contents.entries:
        for path in entry.folders:
            if (path / NOTE).exists():
                note = work.read_json(path / NOTE)["note"]
                seed = work.read_json(path / "config.json")["config"]["seed"]
                rows.append(
                    {"features": entry.features, "model": entry.model, "seed": seed, "note": json.dumps(note)}
                )
    folder.csv("fits", rows, ("features", "model", "seed", "note"))
    body = [
        ("", [html.escape(r["features"]), html.escape(r["model"]), str(r["seed"]), html.escape(r["note"])])
        for r in rows
    ]
    table = html.table(
        html.head(["Features", "Model", "Seed", "Note"], text_columns=4),
        body,
        caption="Settings that the random search chose on the training cells alone, and optima reached.",
        text_columns=4,
    )
    return html.details(f"{len(rows)} fits", table)


def _configuration(contents: Contents, runs: Sequence[Run]) -> str:
    text = {"config": contents.config.to_dict(), "dataset": runs[0].dataset, "versions": runs[0].versions}
    return html.details("Study", html.preformatted(json.dumps(text, indent=2, default=str)))
