"""One paragraph in plain language: which set loses how much, and which class goes where."""

import math
from collections.abc import Sequence
from typing import Any

from coos.report.comparison import FROM_TRAINING, Comparison

Row = dict[str, Any]


def paragraph(
    comparison: Comparison, errors: Sequence[Row], classes: Sequence[Row], growth: Sequence[Row]
) -> str:
    """The paragraph on top of a report, computed from its tables."""
    parts = [
        "Balanced error is the share of cells that are called wrong when every class counts the same.",
    ]
    for name in comparison.configurations:
        mine = {row["set"]: row for row in errors if row["configuration"] == name}
        parts.append(_error_sentence(comparison, name, mine))
        parts.append(_class_sentence(comparison, name, classes, growth))
    return " ".join(part for part in parts if part)


def _error_sentence(comparison: Comparison, name: str, rows: dict[str, Row]) -> str:
    reference = comparison.reference
    if not comparison.shifted:
        shown = [
            f"{_percent(row['balanced_error'])} on {s}" for s, row in rows.items() if s not in FROM_TRAINING
        ]
        shown = shown or [f"{_percent(row['balanced_error'])} on {s}" for s, row in rows.items()]
        reason = "" if reference in rows else f" The reference set {reference} was not evaluated."
        return f"Model {name} has a balanced error of {_join(shown)}.{reason}"
    start = (
        f"Model {name} has a balanced error of {_percent(rows[reference]['balanced_error'])} on {reference}"
    )
    losses = [_loss(rows[set_name]) for set_name in comparison.shifted]
    return f"{start}, the reference, against {_join(losses)}."


def _loss(row: Row) -> str:
    value = f"{_percent(row['balanced_error'])} on {row['set']}"
    low, high = row["gap_low"], row["gap_high"]
    if math.isnan(row["gap"]):
        return value
    change = f"{100 * row['gap']:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
    return f"{value} ({change}{'; no clear change' if low <= 0 <= high else ''})"


def _class_sentence(comparison: Comparison, name: str, classes: Sequence[Row], growth: Sequence[Row]) -> str:
    """The class that loses most sensitivity on any shifted set, and where its cells go."""
    found = {(r["set"], r["class"]): r["sensitivity"] for r in classes if r["configuration"] == name}
    losses = [
        (found[comparison.reference, label] - found[set_name, label], set_name, label)
        for set_name in comparison.shifted
        for label in comparison.class_names
        if not math.isnan(found[comparison.reference, label] - found[set_name, label])
    ]
    lost, set_name, label = max(losses, default=(0.0, "", ""))
    if lost <= 0:
        return f"No class of {name} is found less often than on {comparison.reference}." if losses else ""
    before, after = found[comparison.reference, label], found[set_name, label]
    text = (
        f"The class of {name} that suffers most is {label} on {set_name}: {_percent(after)} of its cells are "
        f"found, {_percent(before)} on {comparison.reference}"
    )
    # Rows come largest first, and what a class loses is exactly what its other columns gain.
    key = (name, set_name, label)
    target = next((r for r in growth if (r["configuration"], r["set"], r["true"]) == key), None)
    if target is None:
        return text + "."
    return (
        text + f"; most of the lost ones go to {target['predicted']} ({100 * target['growth']:+.1f} points)."
    )


def _percent(share: float) -> str:
    return "an undefined share (no examples)" if math.isnan(share) else f"{100 * share:.1f} %"


def _join(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
