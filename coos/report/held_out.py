"""One page about wells that were held out in turn: the network beside what sees no image, fold by fold and together."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from coos.evaluators import held_out, single_cells
from coos.evaluators.held_out import Interval
from coos.metrics import covariate_shift
from coos.report import html, plots
from coos.report.folder import Folder
from coos.workdir import Predictions

ALL = "all folds"
METRICS = {"cell_accuracy": "cells, mean over classes", "well_accuracy": "wells, mean of their cells"}

Folds = Mapping[str, Mapping[str, Predictions]]  # {fold: {method: predictions}}


def write(
    path: pathlib.Path,
    folds: Folds,
    *,
    title: str,
    by: str,
    class_names: Sequence[str],
    simulated: bool,
    details: Mapping[str, Any],
) -> tuple[pathlib.Path, dict[str, dict[str, dict[str, Interval]]]]:
    """Write the page, figures and tables below `path`; returns where, and {fold: {method: {metric: interval}}}."""
    folder = Folder(path)
    everything = {**folds, ALL: pooled(folds)}
    found = {
        fold: {method: held_out.scores(predictions) for method, predictions in methods.items()}
        for fold, methods in everything.items()
    }
    folder.csv("scores", _rows(found), ("fold", "method", "metric", "value", "low", "high"))
    sections = [
        ("Scores", _score_table(found, everything, by) + _plot(folder, found, by, simulated)),
        ("Differences", _differences(everything[ALL])),
        ("Which class goes where", _confusions(everything[ALL], class_names)),
        ("How", html.preformatted("\n".join(f"{name}: {value}" for name, value in details.items()))),
    ]
    banner = plots.SIMULATED_LABEL if simulated else ""
    lead = f'<p class="summary">{html.escape(summary(everything[ALL], by))}</p>'
    return folder.page(html.page(title, lead=lead, sections=sections, banner=banner)), found


def pooled(folds: Folds) -> dict[str, Predictions]:
    """All folds of every method as one set."""
    methods = next(iter(folds.values()))
    return {method: held_out.together([fold[method] for fold in folds.values()]) for method in methods}


def summary(methods: Mapping[str, Predictions], by: str) -> str:
    """Whether the network, the first method, wins, in plain words: only if the interval of the difference says so."""
    network, *others = methods
    score = held_out.cell_accuracy(methods[network])
    parts = [
        f"Cells of wells that were held out by {by}: {network} names {_percent(score)} of the cells right (mean over "
        "classes)."
    ]
    for other in others:
        found = held_out.difference(methods[network], methods[other])
        verdict = (
            "better than"
            if found.low > 0
            else "worse than"
            if found.high < 0
            else "not clearly different from"
        )
        points = f"{100 * found.value:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
        parts.append(f"It is {verdict} {other} ({points}).")
    return " ".join(parts)


def _percent(interval: Interval) -> str:
    return f"{100 * interval.value:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _rows(found: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> list[dict[str, Any]]:
    return [
        {"fold": fold, "method": method, "metric": metric, **interval._asdict()}
        for fold, methods in found.items()
        for method, metrics in methods.items()
        for metric, interval in metrics.items()
    ]


def _score_table(
    found: Mapping[str, Mapping[str, Mapping[str, Interval]]], everything: Folds, by: str
) -> str:
    """Folds down, methods and metrics across, in percent with intervals."""
    methods = list(next(iter(found.values())))
    head = html.head(
        [by, "wells", "cells", *(f"{method}: {text}" for text in METRICS.values() for method in methods)]
    )
    rows = []
    for fold, scores in found.items():
        first = everything[fold][methods[0]]
        cells = [
            html.cell(html.percent(i.value, reason="no wells"), small=html.interval(i.low, i.high))
            for i in (scores[method][metric] for metric in METRICS for method in methods)
        ]
        wells = f"{len(single_cells.wells(first).ids):,}"
        rows.append(("", [html.escape(fold), wells, f"{len(first.ids):,}", *cells]))
    caption = (
        "Accuracy in percent with 95 % intervals: of cells over drawn wells (too narrow where a class has a single "
        "well), of wells Wilson's. Chance is one over the number of classes for cells."
    )
    return html.table(head, rows, caption=caption)


def _plot(
    folder: Folder, found: Mapping[str, Mapping[str, Mapping[str, Interval]]], by: str, simulated: bool
) -> str:
    figures = [
        folder.figure(
            metric,
            interval_plot(
                {f: {m: s[metric] for m, s in methods.items()} for f, methods in found.items()},
                text,
                simulated,
            ),
            alt=f"Accuracy of {text} for every fold and method",
            caption=f"Accuracy of {text}, held out by {by}; bars are 95 % intervals.",
        )
        for metric, text in METRICS.items()
    ]
    return html.grid(figures)


def interval_plot(scores: Mapping[str, Mapping[str, Interval]], text: str, simulated: bool) -> Figure:
    """Points with intervals: folds along the axis, methods in colours."""
    figure = plots.new_figure(6.4, 3.8, simulated=simulated)
    axes = figure.subplots()
    methods = list(next(iter(scores.values())))
    for number, method in enumerate(methods):
        values = [scores[fold][method] for fold in scores]
        places = np.arange(len(scores)) + 0.2 * (number - (len(methods) - 1) / 2)
        middle = 100 * np.array([i.value for i in values])
        lengths = 100 * np.array([[i.value - i.low for i in values], [i.high - i.value for i in values]])
        axes.errorbar(
            places,
            middle,
            yerr=np.maximum(lengths, 0),
            fmt=plots.MARKERS[number],
            color=plots.COLOURS[number],
            capsize=3,
            label=method,
        )
    axes.set(ylabel=f"accuracy (%)\n{text}", ylim=(0, 105), xticks=range(len(scores)))
    axes.set_xticklabels(list(scores), rotation=20, ha="right")
    axes.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def _differences(methods: Mapping[str, Predictions]) -> str:
    network, *others = methods
    rows = []
    for other in others:
        found = held_out.difference(methods[network], methods[other])
        points = html.points(found.value, reason="no wells")
        rows.append(
            (
                "",
                [
                    html.escape(f"{network} minus {other}"),
                    html.cell(points, small=html.interval(found.low, found.high, sign=True)),
                ],
            )
        )
    caption = (
        "Difference of the accuracy of cells in percentage points, all folds; the same wells drawn for both."
    )
    return html.table(html.head(["", "difference"]), rows, caption=caption)


def _confusions(methods: Mapping[str, Predictions], class_names: Sequence[str]) -> str:
    tables = []
    for method, predictions in methods.items():
        for level, found in (("cells", predictions), ("wells", single_cells.wells(predictions))):
            counts = np.asarray(
                covariate_shift.confusion_matrix(
                    found.labels, found.probabilities.argmax(-1), num_classes=len(class_names)
                )
            )
            rows = [
                ("", [html.escape(name), *(f"{count:,}" for count in counts[k])])
                for k, name in enumerate(class_names)
            ]
            head = html.head(["true", *class_names])
            tables.append(
                html.table(
                    head, rows, caption=f"{method}, {level}: true class by row, called class by column."
                )
            )
    return "".join(tables)
