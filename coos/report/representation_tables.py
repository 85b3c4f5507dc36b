"""Tables and sentences of a study of representations, from the rows of `coos.report.scores`."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coos.report import html, scores, tables
from coos.report.comparison import FROM_TRAINING, Comparison
from coos.report.scores import Row, Samples

COLUMNS = ("method", "features", "model", *tables.ERROR_COLUMNS, "best_of_method", "published")
SHIFT_COLUMNS = (
    "configuration",
    "set",
    "seeds",
    "balanced_error",
    "balanced_error_low",
    "balanced_error_high",
    "difference",
    "difference_low",
    "difference_high",
)
GROWTH_COLUMNS = ("set", "true", "predicted", "mean_growth", "largest_growth", "grew_in", "rows")


def rows(
    entries: Sequence[Any], names: Sequence[str], errors: Sequence[Row], published: Mapping[str, Any]
) -> list[Row]:
    """The rows of the table in its order, one for each entry and set, with the published error, as fractions."""
    by_place = {(row["configuration"], row["set"]): row for row in errors}
    sets = list(dict.fromkeys(row["set"] for row in errors))
    found = []
    for entry, name in zip(entries, names, strict=True):
        for set_name in sets:
            row = by_place[name, set_name]
            known = published.get(entry.published, {}).get(set_name, math.nan)
            place = {"method": entry.method, "features": entry.features, "model": entry.model}
            found.append({**row, **place, "published": known / 100, "best_of_method": False})
    for method in dict.fromkeys(row["method"] for row in found):
        for set_name in sets:
            mine = [row for row in found if (row["method"], row["set"]) == (method, set_name)]
            lowest = min((row["balanced_error"] for row in mine), default=math.nan)
            for row in mine:
                row["best_of_method"] = row["balanced_error"] == lowest
    return found


def chosen(listed: Sequence[Row], comparison: Comparison) -> dict[str, Row]:
    """Of each representation the row with the lowest error on the reference set; shifted sets do not choose."""
    best: dict[str, Row] = {}
    for row in listed:
        if row["set"] == comparison.reference and row["best_of_method"]:
            best.setdefault(row["method"], row)
    return best


def table(listed: Sequence[Row], comparison: Comparison, *, source: str, note: str) -> str:
    """Balanced error of every row on every set: the best of each representation bold, interval, published value."""
    body = []
    for name in dict.fromkeys(row["configuration"] for row in listed):
        mine = {row["set"]: row for row in listed if row["configuration"] == name}
        first = next(iter(mine.values()))
        seeds = "1 seed" if first["seeds"] == 1 else f"mean of {first['seeds']} seeds"
        left = [html.cell(html.escape(first["features"]), small=seeds), html.escape(first["model"])]
        body.append(("", [*left, *(_cell(mine[set_name]) for set_name in comparison.sets)]))
    published = f" Below: published ({source})" if any(not math.isnan(r["published"]) for r in listed) else ""
    warning = ", NOT COMPARABLE: these cells are simulated." if published and comparison.simulated else "."
    caption = (
        "Class-balanced error in % with its 95 % interval; bold: the best of each representation on each set."
        f"{published}{warning if published else ''} {note}"
    )
    header = html.head(["Features", "Model", *comparison.sets], text_columns=2)
    return html.table(header, body, caption=caption, text_columns=2)


def _cell(row: Row) -> str:
    value = html.percent(row["balanced_error"], reason=row["note"])
    text = f"<strong>{value}</strong>" if row["best_of_method"] else value
    bounds = html.interval(row["balanced_error_low"], row["balanced_error_high"])
    known = "" if math.isnan(row["published"]) else f"published {100 * row['published']:.1f}"
    return html.cell(text, small=bounds) + (f"<small>{known}</small>" if known else "")


def shift_table(found: Sequence[Row], comparison: Comparison) -> str:
    """Error of each method and its difference from the plain network, with intervals."""
    body = []
    for name in dict.fromkeys(row["configuration"] for row in found):
        mine = {row["set"]: row for row in found if row["configuration"] == name}
        cells = [_shift_cell(mine[s]) for s in comparison.sets]
        seeds = next(iter(mine.values()))["seeds"]
        body.append(
            ("", [html.cell(html.escape(name), small=f"{seeds} seed{'s' if seeds > 1 else ''}"), *cells])
        )
    caption = (
        "Class-balanced error in % with its 95 % interval, and below the difference from the plain network in "
        "percentage points with its interval, paired over cells and seeds; bold: the interval leaves zero out. "
        "Intervals are not corrected for how many there are; with few seeds they understate how seeds vary."
    )
    return html.table(html.head(["Network", *comparison.sets]), body, caption=caption)


def _shift_cell(row: Row) -> str:
    text = html.percent(row["balanced_error"], reason="no examples")
    text = html.cell(text, small=html.interval(row["balanced_error_low"], row["balanced_error_high"]))
    if row["is_plain"]:
        return text
    change = html.points(row["difference"], reason="no examples")
    change = f"<strong>{change}</strong>" if is_clear(row) else change
    return (
        text
        + f"<small>{change} {html.interval(row['difference_low'], row['difference_high'], sign=True)}</small>"
    )


def is_clear(row: Row) -> bool:
    """Whether the interval of a difference leaves zero out."""
    return not row["difference_low"] <= 0 <= row["difference_high"]


def growth_rows(comparison: Comparison, matrices: Samples) -> list[Row]:
    """For every shifted set and pair of classes how much the confusion grew from the reference, over all rows."""
    found = []
    for set_name in comparison.shifted:
        grown = np.stack(
            [
                scores.growth(comparison, matrices, set_name, positions)
                for positions in comparison.configurations.values()
            ]
        )
        for t, p in np.ndindex(grown.shape[1:]):
            values = grown[:, t, p]
            if t != p and np.isfinite(values).all():
                found.append(
                    {
                        "set": set_name,
                        "true": comparison.class_names[t],
                        "predicted": comparison.class_names[p],
                        "mean_growth": float(values.mean()),
                        "largest_growth": float(values.max()),
                        "grew_in": int((values > 0).sum()),
                        "rows": len(values),
                    }
                )
    return sorted(found, key=lambda row: -row["mean_growth"])


def growth_table(found: Sequence[Row], comparison: Comparison, *, count: int) -> str:
    """The confusions that grew most over all rows of the table, of each shifted set."""
    body = []
    for set_name in comparison.shifted:
        for row in [r for r in found if r["set"] == set_name and r["mean_growth"] > 0][:count]:
            pair = f"{html.escape(row['true'])} called {html.escape(row['predicted'])}"
            cells = [f"{100 * row[k]:+.1f}" for k in ("mean_growth", "largest_growth")]
            body.append(("", [html.escape(set_name), pair, *cells, f"{row['grew_in']} of {row['rows']}"]))
    caption = (
        f"Confusions that grew from {comparison.reference}, in percentage points of the true class; means over all "
        "rows of the table."
    )
    names = ["Set", "Confusion", "Mean growth", "Largest growth", "Rows in which it grew"]
    return html.table(html.head(names, text_columns=2), body, caption=caption, text_columns=2)


def summary(
    listed: Sequence[Row], best: Mapping[str, Row], against: Sequence[Row], comparison: Comparison
) -> str:
    """The paragraph on top: which representation loses least, and whether a method helps beyond its interval."""
    parts = [
        "Balanced error is the share of cells that are called wrong when every class counts the same. For each "
        f"representation, the row that is best on {comparison.reference}:"
    ]
    parts += [_losses(set_name, listed, best, comparison) for set_name in comparison.shifted]
    return " ".join([*parts, *_helpers(against, comparison)])


def _losses(set_name: str, listed: Sequence[Row], best: Mapping[str, Row], comparison: Comparison) -> str:
    """How much each representation loses on a set, the smallest loss first."""
    names = {row["configuration"]: method for method, row in best.items()}
    mine = [row for row in listed if row["set"] == set_name and row["configuration"] in names]
    mine.sort(key=lambda row: row["gap"])
    told = [
        f"{row['configuration']} {100 * (row['balanced_error'] - row['gap']):.1f} % to "
        f"{100 * row['balanced_error']:.1f} % ({100 * row['gap']:+.1f} points {_span(row, 'gap')})"
        for row in mine
    ]
    fewest = min(mine, key=lambda row: row["balanced_error"])
    return (
        f"From {comparison.reference} to {set_name}, the smallest loss first: {'; '.join(told)}. The fewest errors on "
        f"{set_name}: {fewest['configuration']}; a small loss of a row that errs much anyway is no merit."
    )


def _span(row: Row, name: str) -> str:
    return html.interval(row[f"{name}_low"], row[f"{name}_high"], sign=True)


def _helpers(against: Sequence[Row], comparison: Comparison) -> list[str]:
    """A sentence for every set on which a method was held against the plain network."""
    found = []
    for set_name in (s for s in comparison.sets if s not in FROM_TRAINING):
        mine = [row for row in against if row["set"] == set_name and not row["is_plain"]]
        better = [row for row in mine if row["difference"] < 0 and is_clear(row)]
        worse = [row for row in mine if row["difference"] > 0 and is_clear(row)]
        if not mine:
            continue
        text = f"On {set_name} {_told(better, 'fewer') or 'no method makes clearly fewer errors'}"
        found.append(f"{text}{'; ' + _told(worse, 'more') if worse else ''}.")
    plain = [row["configuration"] for row in against if row["is_plain"]]
    return [f"Methods against the shift, compared with {plain[0]}:", *found] if found else []


def _told(found: Sequence[Row], word: str) -> str:
    named = [
        f"{row['configuration']} ({100 * row['difference']:+.1f} points {_span(row, 'difference')})"
        for row in sorted(found, key=lambda row: row["difference"])
    ]
    return f"clearly {word} errors with {', '.join(named)}" if named else ""
