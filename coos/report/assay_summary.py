"""One paragraph in plain language: which model is best, is that luck, and does it know more than the cell count."""

import math
from collections.abc import Sequence

import numpy as np

from coos.report.assay_comparison import BASELINE, Comparison
from coos.report.assay_scores import LEVEL, WILCOXON_LEVEL, Pair, Row, Scores, interval, ranked
from coos.report.retrieval_summary import join


def paragraph(
    comparison: Comparison,
    scores: Sequence[Scores],
    rows: Sequence[Row],
    p_values: np.ndarray,
    against: Sequence[Pair],
) -> str:
    """The paragraph on top of a report, computed from its tables; `against` are networks against the baseline."""
    by_name = {row["model"]: row for row in rows}
    order = [s for s in ranked(scores) if s.name != BASELINE]
    best = order[0]
    parts = [_extent(comparison, by_name[best.name])]
    if not by_name[best.name]["defined_auroc"]:
        return f"{parts[0]} So nothing can be said about the models."
    parts.append(_best(best, by_name[best.name], len(order)))
    if len(order) > 1:
        parts.append(_second(best, order[1]))
        parts.append(_significance([s.name for s in scores], [s.name for s in order], p_values))
    parts.append(_high(by_name[best.name]))
    parts.append(_baseline(comparison, by_name, scores, best, against))
    return " ".join(part for part in parts if part)


def _extent(comparison: Comparison, row: Row) -> str:
    undefined = row["num_assays"] - row["defined_auroc"]
    text = (
        f"Predicted are {_count(row['num_assays'], 'assay')} in {comparison.units(len(comparison.ids))} of "
        f"{_count(len(set(comparison.compounds.tolist())), 'compound')} (set {comparison.set_name})."
    )
    if undefined:
        verb = "has" if undefined == 1 else "have"
        text += (
            f" {_count(undefined, 'assay')} {verb} no active or no inactive {comparison.level}s here: "
            "the AUC is undefined and left out."
        )
    return text


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _best(best: Scores, row: Row, models: int) -> str:
    start = f"{best.name} has the highest mean AUC," if models > 1 else f"{best.name} has a mean AUC of"
    low, high = row["mean_auroc_low"], row["mean_auroc_high"]
    bounds = "" if math.isnan(low) else f" (95 % interval over compounds {low:.3f} to {high:.3f})"
    return f"{start} {row['mean_auroc']:.3f}{bounds}; chance is 0.5."


def _second(best: Scores, second: Scores) -> str:
    low, high = interval(best.mean_replicates - second.mean_replicates)
    difference = float(np.nanmean(best.auroc) - np.nanmean(second.auroc))
    text = f"That is {difference:.3f} more than {second.name}, the second"
    return text + ("." if math.isnan(low) else f" (95 % interval {low:+.3f} to {high:+.3f}).")


def _significance(names: Sequence[str], order: Sequence[str], p_values: np.ndarray) -> str:
    """Which of the other models the best one outperforms over assays."""
    column = names.index(order[0])
    better = [n for n in order[1:] if p_values[names.index(n), column] < WILCOXON_LEVEL]
    others = [n for n in order[1:] if n not in better]
    test = f"one-sided paired Wilcoxon test over assays, p < {WILCOXON_LEVEL:g}"
    if not better:
        return f"Over assays it does not outperform {join(others)} significantly ({test})."
    text = f"Over assays it outperforms {join(better)} significantly ({test})"
    return f"{text}, but not {join(others)}." if others else f"{text}."


def _high(row: Row) -> str:
    number = row["auroc_above_0.9"]
    return f"{_count(number, 'assay')} {'is' if number == 1 else 'are'} predicted with an AUC above 0.9."


def _baseline(
    comparison: Comparison,
    rows: dict[str, Row],
    scores: Sequence[Scores],
    best: Scores,
    against: Sequence[Pair],
) -> str:
    """How far the best model is above what the number of cells says."""
    if comparison.baseline is None:
        return (
            "No cell counts are known, so there is no baseline: these numbers do not tell whether a model sees more "
            "than how many cells survived."
        )
    pair = next(pair for pair in against if pair.first == best.name)
    defined = ~np.isnan(pair.found.p_value)
    won, lost, number = pair.first_better.sum(), pair.second_better.sum(), int(defined.sum())
    cells = next(found for found in scores if found.name == BASELINE)
    not_above = int((best.auroc[defined] <= cells.auroc[defined]).sum())
    text = (
        f"The cell count alone reaches {rows[BASELINE]['mean_auroc']:.3f}. {best.name} is significantly better than "
        f"it in {won} of {_count(number, 'assay')} and significantly worse in {lost} (Venkatraman's test, false "
        f"discovery rate {LEVEL:g}). In the other {number - won - lost} no difference is shown, which does not mean "
        f"that there is none: an assay of few {comparison.level}s can hardly show one. "
        f"In {_count(not_above, 'assay')} its AUC is not above that of the cell count."
    )
    return text + seeds_note(comparison)


def seeds_note(comparison: Comparison) -> str:
    """What tests and tables take of several seeds, a sentence; "" where every model has one."""
    if all(len(model.runs) < 2 for model in comparison.models):
        return ""
    return " Tests take the probabilities averaged over seeds; the AUCs shown are means over seeds."
