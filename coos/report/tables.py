"""Tables of a covariate-shift report as HTML, from the rows of `coos.report.scores`."""

import math
from collections.abc import Sequence
from typing import Any

from coos.report import html
from coos.report.comparison import Comparison

Row = dict[str, Any]
ERROR_COLUMNS = (
    "configuration",
    "set",
    "n",
    "seeds",
    "balanced_error",
    "balanced_error_low",
    "balanced_error_high",
    "gap",
    "gap_low",
    "gap_high",
    "accuracy",
    "cross_entropy",
    "expected_calibration_error",
    "balanced_error_of_each_seed",
    "note",
)
DETAIL_NAMES = (
    "Model",
    "Set",
    "Cells",
    "Balanced error (%)",
    "Each seed (%)",
    "Accuracy (%)",
    "Cross-entropy (nats)",
    "Calibration error (%)",
)
PUBLISHED_COLUMNS = ("configuration", "source", "set", "balanced_error", "gap", "comparable")
CLASS_COLUMNS = ("configuration", "set", "class", "n", "sensitivity", "precision", "note")
GROWTH_COLUMNS = ("configuration", "set", "true", "predicted", "reference_share", "share", "growth")
MISTAKE_COLUMNS = ("configuration", "set", "id", "true", "predicted", "probability")


def interval_text(comparison: Comparison, num_resamples: int) -> str:
    """How the intervals of this comparison were drawn, in words."""
    several = any(len(positions) > 1 for positions in comparison.configurations.values())
    over = "cells and over seeds" if several else "cells"
    text = (
        f"95 % intervals: bootstrap over {over} ({num_resamples} resamples, cells drawn within each class)."
    )
    if several:
        text += " Values are means over seeds; with few seeds the interval understates how seeds vary."
    else:
        text += " One seed: how much another seed would change the value is not included."
    apart = [name for name in comparison.sets if not comparison.evaluated[name].shared]
    if apart:
        text += f" Runs hold out different cells for {', '.join(apart)}: these are drawn for each run alone."
    return text


def errors(
    rows: Sequence[Row], published: Sequence[Row], comparison: Comparison, *, num_resamples: int
) -> str:
    """Balanced error per set, configurations and published rows below each other."""
    body = [
        (
            "",
            [
                _heading(name, len(positions)),
                *(_error_cell(row, comparison) for row in rows if row["configuration"] == name),
            ],
        )
        for name, positions in comparison.configurations.items()
    ]
    for name, entry in comparison.published.items():
        mine = [row for row in published if row["configuration"] == name]
        cells = [_published_cell(row, comparison.reference) for row in mine]
        body.append(("published", [_published_heading(name, entry, comparison), *cells]))
    caption = (
        "Class-balanced error in %; below it the 95 % interval and the gap to "
        f"{comparison.reference} in percentage points with its interval. "
        + interval_text(comparison, num_resamples)
    )
    return html.table(
        html.head(["Model", *map(_set_title(comparison), comparison.sets)]), body, caption=caption
    )


def _set_title(comparison: Comparison) -> Any:
    return lambda name: f"{name} (reference)" if name == comparison.reference else name


def _heading(name: str, seeds: int) -> str:
    return html.cell(html.escape(name), small="1 seed" if seeds == 1 else f"mean of {seeds} seeds")


def _published_heading(name: str, entry: Row, comparison: Comparison) -> str:
    warning = "; NOT COMPARABLE: the other rows are simulated data" if comparison.simulated else ""
    return html.cell(html.escape(name), small=f"published: {entry['source']}{warning}")


def _error_cell(row: Row, comparison: Comparison) -> str:
    value = html.percent(row["balanced_error"], reason=row["note"])
    bounds = html.interval(row["balanced_error_low"], row["balanced_error_high"])
    text = html.cell(f"<strong>{value}</strong>", small=bounds)
    if row["set"] == comparison.reference:
        return text
    if comparison.reference not in comparison.sets:
        return text + f"<small>gap undefined: {html.escape(comparison.reference)} not evaluated</small>"
    bounds = html.interval(row["gap_low"], row["gap_high"], sign=True)
    return text + f"<small>gap {html.points(row['gap'], reason=row['note'])} {bounds}</small>"


def _published_cell(row: Row, reference: str) -> str:
    if math.isnan(row["balanced_error"]):
        return "<small>not published</small>"
    bare = row["set"] == reference or math.isnan(row["gap"])
    gap = "" if bare else f"gap {html.points(row['gap'], reason='')}"
    return html.cell(f"{100 * row['balanced_error']:.1f}", small=gap)


def details(rows: Sequence[Row]) -> str:
    """All scalar scores, one row per configuration and set."""
    caption = (
        "Balanced error gives every class the same weight, accuracy every cell. Expected calibration error: "
        "mean distance between confidence and accuracy in 15 bins of confidence. Means over seeds."
    )
    body = [("", _detail_cells(row)) for row in rows]
    table = html.table(html.head(DETAIL_NAMES, text_columns=2), body, caption=caption, text_columns=2)
    return _absent_notes(rows) + table


def _detail_cells(row: Row) -> list[str]:
    reason = "no examples"
    return [
        html.escape(row["configuration"]),
        html.escape(row["set"]),
        f"{row['n']:,}",
        html.cell(html.percent(row["balanced_error"], reason=reason), small=row["note"]),
        ", ".join(f"{100 * error:.1f}" for error in row["balanced_error_of_each_seed"]),
        html.percent(row["accuracy"], reason=reason),
        html.number(row["cross_entropy"], reason=reason),
        html.percent(row["expected_calibration_error"], reason=reason),
    ]


def _absent_notes(rows: Sequence[Row]) -> str:
    """Sets whose balanced error averages fewer classes, so that their gaps do not compare like with like."""
    notes = [
        f"{row['set']}: {row['note']}; its balanced error averages the other classes only, and so its gap "
        "does not compare like with like."
        for row in rows
        if row["note"]
    ]
    return "".join(html.paragraph(note, css="warning") for note in dict.fromkeys(notes))


def classes(rows: Sequence[Row], comparison: Comparison) -> str:
    """Sensitivity and precision, classes down and sets across."""
    sets = comparison.sets
    top = "".join(f'<th scope="colgroup" colspan="2">{html.escape(name)}</th>' for name in sets)
    below = '<th scope="col">sens.</th><th scope="col">prec.</th>' * len(sets)
    left = "".join(f'<th scope="col" class="text" rowspan="2">{name}</th>' for name in ("Class", "Model"))
    header = f"<tr>{left}{top}</tr><tr>{below}</tr>"
    body = []
    for label in comparison.class_names:
        for name in comparison.configurations:
            mine = {row["set"]: row for row in rows if (row["class"], row["configuration"]) == (label, name)}
            pairs = [part for set_name in sets for part in _class_cells(mine[set_name])]
            body.append(("", [html.escape(label), html.escape(name), *pairs]))
    caption = (
        "Sensitivity: share of a class's cells that were found. Precision: share of the cells called so that "
        "are. In %, below the sensitivity the number of cells. Counts are averaged over seeds."
    )
    return html.table(header, body, caption=caption, text_columns=2)


def _class_cells(row: Row) -> tuple[str, str]:
    found = html.percent(row["sensitivity"], reason="no examples of this class")
    right = html.percent(row["precision"], reason="this class was never predicted")
    return html.cell(found, small=f"n {row['n']:,.0f}"), right


def growth_list(rows: Sequence[Row], *, count: int) -> str:
    """The confusions that grew most, as sentences."""
    if not rows:
        return html.paragraph("No confusion grew.")
    items = "".join(
        f"<li>{html.escape(row['true'])} called {html.escape(row['predicted'])}: "
        f"<strong>{100 * row['growth']:+.1f} points</strong> ({html.escape(row['set'])}; from "
        f"{100 * row['reference_share']:.1f} % to {100 * row['share']:.1f} % of the class)</li>"
        for row in rows[:count]
    )
    return f"<ol>{items}</ol>"


def mistakes(rows: Sequence[Row]) -> str:
    """The mistakes with their full ids."""
    names = ["Id", "Model", "Set", "True class", "Predicted class", "Probability"]
    keys = ("id", "configuration", "set", "true", "predicted")
    body = [("", [*(html.escape(row[key]) for key in keys), f"{row['probability']:.3f}"]) for row in rows]
    caption = "The surest mistakes of each model and set, the surest first."
    return html.table(html.head(names, text_columns=5), body, caption=caption, text_columns=5)
