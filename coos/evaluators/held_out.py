"""Leave one plate, batch or donor out after the other: what a network and two baselines make of wells it never saw.

    logistic regression on intensity statistics   mean, spread and percentiles of every channel of a cell
    cell count                                     nothing but how many cells the field has

Cells of one well are not independent, so that intervals are over wells: 95 % of bootstrap replicates that draw wells
within each class for cells (`cell_accuracy`, the mean over classes), and Wilson's for the share of wells that are
named right (`well_accuracy`).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from coos.data.source import Source
from coos.evaluators import single_cells
from coos.extract import intensities
from coos.workdir import Predictions

BLOCK = 512  # cells worked on at once
FITTED_CELLS = 50_000  # at most, of the training cells
REPLICATES = 1000
Z = 1.959963984540054  # of the normal distribution, two-sided 95 %


class Interval(NamedTuple):
    """An estimate and the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def intensity_features(source: Source) -> np.ndarray:
    """(N, F) float32: intensity statistics of every channel of every cell, see `coos.extract.intensities`."""
    blocks = (np.arange(start, min(start + BLOCK, len(source))) for start in range(0, len(source), BLOCK))
    return np.concatenate([intensities.statistics(source.gather(rows)) for rows in blocks])


def cell_counts(source: Source, counts: np.ndarray) -> np.ndarray:
    """(N, 1) the logarithm of the number of cells in each cell's field; `counts` (S,) are those of the places."""
    return np.log1p(counts[source.columns["place"]].astype(np.float64))[:, None]


def fit_and_predict(
    training: np.ndarray, labels: np.ndarray, judged: np.ndarray, *, num_classes: int, seed: int = 0
) -> np.ndarray:
    """(N, num_classes) float32: logistic regression on standardized features, classes weighted alike."""
    rows = np.random.default_rng(seed).permutation(len(training))[:FITTED_CELLS]
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000))
    model.fit(training[rows], labels[rows])
    found = np.zeros((len(judged), num_classes), np.float32)
    found[:, model.classes_] = model.predict_proba(judged)
    return found


def baselines(training: Source, judged: Source, counts: np.ndarray) -> dict[str, Predictions]:
    """What logistic regressions that see no image predict: {name: predictions on the judged cells}."""
    features = {
        "intensity statistics": (intensity_features(training), intensity_features(judged)),
        "cell count": (cell_counts(training, counts), cell_counts(judged, counts)),
    }
    return {
        name: Predictions(
            judged.ids,
            judged.labels,
            fit_and_predict(known, training.labels, new, num_classes=len(training.class_names)),
            judged.columns,
        )
        for name, (known, new) in features.items()
    }


def together(folds: Sequence[Predictions]) -> Predictions:
    """All folds as one set: every cell is in one of them."""
    names = sorted(set.intersection(*(set(fold.columns) for fold in folds)))
    return Predictions(
        np.concatenate([fold.ids for fold in folds]),
        np.concatenate([fold.labels for fold in folds]),
        np.concatenate([fold.probabilities for fold in folds]),
        {name: np.concatenate([fold.columns[name] for fold in folds]) for name in names},
    )


def scores(predictions: Predictions, *, seed: int = 0) -> dict[str, Interval]:
    """`cell_accuracy` and `well_accuracy` with their intervals."""
    per_well = single_cells.wells(predictions)
    right = int((per_well.probabilities.argmax(-1) == per_well.labels).sum())
    return {
        "cell_accuracy": cell_accuracy(predictions, seed=seed),
        "well_accuracy": wilson(right, len(per_well.ids)),
    }


def cell_accuracy(predictions: Predictions, *, seed: int = 0) -> Interval:
    """Mean over classes of the share of cells named right; interval over wells, drawn within each class."""
    replicates = _replicates(predictions, seed=seed)
    return Interval(float(replicates[0]), *(float(q) for q in np.nanpercentile(replicates[1:], [2.5, 97.5])))


def difference(first: Predictions, second: Predictions, *, seed: int = 0) -> Interval:
    """`cell_accuracy` of the first minus that of the second on the same cells, the same wells drawn for both."""
    if not np.array_equal(first.ids, second.ids):
        raise ValueError("the two predictions are not of the same cells in the same order")
    replicates = _replicates(first, seed=seed) - _replicates(second, seed=seed)
    return Interval(float(replicates[0]), *(float(q) for q in np.nanpercentile(replicates[1:], [2.5, 97.5])))


def _replicates(predictions: Predictions, *, seed: int) -> np.ndarray:
    """(1 + REPLICATES,) mean over classes of the share of cells named right: of all wells, then of drawn ones."""
    generator = np.random.default_rng(seed)
    names, well = np.unique(predictions.columns["well"], return_inverse=True)
    right = np.bincount(
        well, predictions.probabilities.argmax(-1) == predictions.labels, minlength=len(names)
    )
    cells = np.bincount(well, minlength=len(names))
    label = np.zeros(len(names), np.int64)
    label[well] = predictions.labels
    shares = []
    for k in np.unique(label):
        members = np.flatnonzero(label == k)
        drawn = members[generator.integers(len(members), size=(REPLICATES, len(members)))]
        drawn = np.concatenate([members[None], drawn])
        shares.append(right[drawn].sum(1) / cells[drawn].sum(1))
    return np.mean(shares, axis=0)


def wilson(right: int, total: int) -> Interval:
    """Share of successes with Wilson's interval (Wilson 1927), which stays within [0, 1]; NaN of none."""
    if not total:
        return Interval(np.nan, np.nan, np.nan)
    share, spread = right / total, Z**2 / total
    middle = (share + spread / 2) / (1 + spread)
    half = Z / (1 + spread) * np.sqrt(share * (1 - share) / total + spread / total / 4)
    return Interval(share, float(middle - half), float(middle + half))


def result_rows(
    fold: str, found: Mapping[str, Mapping[str, Interval]], labels: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Rows of results.jsonl: one for every method, metric and end of its interval."""
    return [
        {**labels, "split": method, "fold": fold, "metric": f"{metric}{suffix}", "value": value}
        for method, metrics in found.items()
        for metric, interval in metrics.items()
        for suffix, value in zip(("", "/low", "/high"), interval, strict=True)
    ]
