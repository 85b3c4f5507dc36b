"""The numbers of a report on assay predictions: from a `Comparison` to arrays per assay and rows of plain values.

Scores are taken of each seed and averaged; tests take the probabilities averaged over seeds. NaN means undefined.
"""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from coos.metrics import multitask, statistics
from coos.metrics.multitask.summary import ABOVE
from coos.report.assay_comparison import Comparison, Model

Row = dict[str, Any]
LEVEL = 0.05  # of the false discovery rate among the assays of a pair of models
WILCOXON_LEVEL = 0.01


@dataclasses.dataclass(frozen=True)
class Scores:
    """Of one model: auroc, average_precision, f1, low, high (T,) per assay, means over seeds.

    replicates: (R, T) AUROC where other compounds were drawn, the same ones for all models, averaged over seeds;
    low and high are the 2.5 % and 97.5 % points of these.
    """

    name: str
    auroc: np.ndarray
    average_precision: np.ndarray
    f1: np.ndarray
    replicates: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def mean_replicates(self) -> np.ndarray:
        """(R,): mean AUROC over the assays that are defined in each replicate."""
        return _mean(self.replicates, axis=1)


class Pair(NamedTuple):
    """Venkatraman's test of two models for every assay, corrected by Benjamini and Hochberg; see `Comparison` there."""

    first: str
    second: str
    found: statistics.Comparison

    @property
    def first_better(self) -> np.ndarray:
        """(T,) bool: the ROC curves differ significantly, and the area of the first is larger."""
        return self.found.outcome > 0

    @property
    def second_better(self) -> np.ndarray:
        """(T,) bool: the ROC curves differ significantly, and the area of the second is larger."""
        return self.found.outcome < 0


def _mean(values: np.ndarray, *, axis: int) -> Any:
    """Mean of what is not NaN; NaN where nothing is."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return np.nanmean(values, axis=axis)


def interval(replicates: np.ndarray) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points of what is not NaN; NaN if fewer than two are."""
    known = replicates[~np.isnan(replicates)]
    low, high = np.quantile(known, (0.025, 0.975)) if len(known) > 1 else (np.nan, np.nan)
    return float(low), float(high)


def score(comparison: Comparison, *, num_resamples: int = 1000, seed: int = 0) -> list[Scores]:
    """Scores of every model."""
    return [_score(comparison, model, num_resamples, seed) for model in comparison.models]


def _score(comparison: Comparison, model: Model, num_resamples: int, seed: int) -> Scores:
    labels, mask = comparison.labels > 0, comparison.mask
    metrics = (multitask.auroc, multitask.average_precision, multitask.f1)
    found = [np.array([metric(s, labels, mask) for s in model.scores], np.float64) for metric in metrics]
    drawn = [
        multitask.bootstrap(
            s, labels, mask, groups=comparison.compounds, num_replicates=num_resamples, seed=seed
        ).replicates
        for s in model.scores
    ]
    replicates = np.asarray(np.mean(drawn, axis=0, dtype=np.float64))
    bounds = np.array([interval(column) for column in replicates.T]).T
    auroc, precision, f1 = (_mean(values, axis=0) for values in found)
    return Scores(model.name, auroc, precision, f1, replicates, *bounds)


def wilcoxon(scores: Sequence[Scores]) -> np.ndarray:
    """(M, M) one-sided p-values that the column's model outperforms the row's in AUROC; NaN on the diagonal."""
    return statistics.paired_wilcoxon(np.array([s.auroc for s in scores])).p_value


def compare_pair(
    comparison: Comparison, first: str, second: str, *, num_permutations: int, seed: int
) -> Pair:
    """Venkatraman's test of two models, assay by assay, of the probabilities averaged over their seeds."""
    found = statistics.compare(
        comparison.model(first).mean_scores,
        comparison.model(second).mean_scores,
        comparison.labels > 0,
        comparison.mask,
        level=LEVEL,
        num_permutations=num_permutations,
        seed=seed,
    )
    return Pair(first, second, found)


def ranked(scores: Sequence[Scores]) -> list[Scores]:
    """Models by falling mean AUROC, the baseline among them; those without a defined assay come last."""
    means = [float(_mean(s.auroc, axis=0)) for s in scores]
    order = sorted(range(len(scores)), key=lambda i: np.inf if np.isnan(means[i]) else -means[i])
    return [scores[i] for i in order]


def pearson(first: Scores, second: Scores) -> float:
    """Correlation of two models' AUROC over assays; NaN where fewer than three are defined or one is constant."""
    known = ~np.isnan(first.auroc) & ~np.isnan(second.auroc)
    x, y = first.auroc[known], second.auroc[known]
    return float(np.corrcoef(x, y)[0, 1]) if known.sum() > 2 and np.ptp(x) and np.ptp(y) else np.nan


def reasons(comparison: Comparison) -> list[str]:
    """(T,) why the AUROC of each assay is undefined; "" where it is defined."""
    active, inactive = (np.asarray(n) for n in multitask.counts(comparison.labels > 0, comparison.mask))
    units = f"{comparison.level}s"
    return [
        f"no labelled {units}"
        if not (a or i)
        else f"no active {units}"
        if not a
        else f"no inactive {units}"
        if not i
        else ""
        for a, i in zip(active, inactive, strict=True)
    ]


SUMMARY_COLUMNS = (
    "model",
    "seeds",
    "mean_auroc",
    "mean_auroc_low",
    "mean_auroc_high",
    "std_auroc",
    "mean_auroc_half",
    "std_auroc_half",
    "mean_f1",
    "std_f1",
    "mean_average_precision",
    "std_average_precision",
    *(f"auroc_above_{level}" for level in ABOVE),
    "num_assays",
    "defined_auroc",
    "defined_f1",
    "defined_average_precision",
)


def summary_rows(comparison: Comparison, scores: Sequence[Scores]) -> list[Row]:
    """A row of means over assays per model; standard deviations (divisor: number of assays) are over assays."""
    rows = []
    for model, found in zip(comparison.models, scores, strict=True):
        half = np.where(np.isnan(found.auroc), 0.5, found.auroc)
        low, high = interval(found.mean_replicates)
        row: Row = {"model": model.name, "seeds": len(model.scores), "num_assays": len(half)}
        row |= {"mean_auroc_low": low, "mean_auroc_high": high}
        row |= {"mean_auroc_half": float(half.mean()), "std_auroc_half": float(half.std())}
        row |= {f"auroc_above_{level}": int((found.auroc > level).sum()) for level in ABOVE}
        for name in ("auroc", "f1", "average_precision"):
            known = (values := getattr(found, name))[~np.isnan(values)]
            row[f"mean_{name}"] = float(known.mean()) if len(known) else np.nan
            row[f"std_{name}"] = float(known.std()) if len(known) else np.nan
            row[f"defined_{name}"] = len(known)
        rows.append(row)
    return rows


ASSAY_COLUMNS = (
    "assay",
    "active",
    "inactive",
    "model",
    "auroc",
    "auroc_low",
    "auroc_high",
    "average_precision",
    "f1",
    "p_against_cell_count",
    "corrected_p_against_cell_count",
    "undefined",
)


def assay_rows(comparison: Comparison, scores: Sequence[Scores], against: Sequence[Pair]) -> list[Row]:
    """A row per assay and model; `against` are the tests of networks against the baseline."""
    active, inactive = (np.asarray(n) for n in multitask.counts(comparison.labels > 0, comparison.mask))
    pairs = {pair.first: pair for pair in against}
    why = reasons(comparison)
    return [
        {
            "assay": task,
            "active": int(active[t]),
            "inactive": int(inactive[t]),
            "model": found.name,
            "auroc": float(found.auroc[t]),
            "auroc_low": float(found.low[t]),
            "auroc_high": float(found.high[t]),
            "average_precision": float(found.average_precision[t]),
            "f1": float(found.f1[t]),
            "p_against_cell_count": float(pairs[found.name].found.p_value[t])
            if found.name in pairs
            else np.nan,
            "corrected_p_against_cell_count": (
                float(pairs[found.name].found.corrected_p_value[t]) if found.name in pairs else np.nan
            ),
            "undefined": why[t],
        }
        for t, task in enumerate(comparison.tasks)
        for found in scores
    ]


PAIR_COLUMNS = ("assay", "first", "second", "auroc_first", "auroc_second", "p_value", "corrected_p_value")


def pair_rows(comparison: Comparison, scores: Sequence[Scores], pair: Pair) -> list[Row]:
    """A row per assay of the test of two models."""
    auroc = {s.name: s.auroc for s in scores}
    return [
        {
            "assay": task,
            "first": pair.first,
            "second": pair.second,
            "auroc_first": float(auroc[pair.first][t]),
            "auroc_second": float(auroc[pair.second][t]),
            "p_value": float(pair.found.p_value[t]),
            "corrected_p_value": float(pair.found.corrected_p_value[t]),
        }
        for t, task in enumerate(comparison.tasks)
    ]
