"""DeLong's test: do two models have the same AUROC? The fast alternative to permutations."""

from typing import NamedTuple

import numpy as np
import scipy.special
from jax.typing import ArrayLike

from coos.metrics import multitask
from coos.metrics.multitask.bootstrap import reject_nan


class DeLong(NamedTuple):
    """Per task, (T,) float64, NaN where undefined: AUROC of the first model minus that of the second, its standard
    error, z = difference / standard error, and the two-sided p-value."""

    difference: np.ndarray
    standard_error: np.ndarray
    z: np.ndarray
    p_value: np.ndarray


def delong(
    scores_1: ArrayLike, scores_2: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None
) -> DeLong:
    """Test of equal AUROCs of two models on the same entries (DeLong et al. 1988).

    scores_1, scores_2, labels, mask: (N, T) as in `multitask.auroc`. With d the differences between the two models'
    placements (the share of the other class that an entry is on the right side of; these come from sorting as in
    Sun & Xu 2014, not from all pairs),

        variance = var(d of active entries) / active + var(d of inactive entries) / inactive,

    which is DeLong's covariance matrix contracted with (1, -1); variances have the divisor n - 1, so that tasks need
    two entries of each class, else all is NaN. Where the variance is 0, z is 0 and p is 1 without a difference; with
    one (every placement moved by the same amount: perfect against reversed, say) z is infinite and p is 0.
    Raises ValueError at a NaN score of a labelled entry.
    """
    active = np.asarray(labels) > 0
    labelled = np.ones(active.shape, bool) if mask is None else np.asarray(mask).astype(bool)
    first, second = (
        np.asarray(multitask.placements(s, labels, labelled), np.int64) for s in (scores_1, scores_2)
    )
    for scores in (scores_1, scores_2):
        reject_nan(np.asarray(scores), labelled)
    moved = (first - second).astype(np.float64) / 2
    positives, negatives = (_moments(moved, labelled & entries) for entries in (active, ~active))
    defined = (positives.number > 1) & (negatives.number > 1)
    p, n = (np.where(defined, m.number, 2).astype(np.float64) for m in (positives, negatives))
    difference = np.where(defined, positives.mean / n, np.nan)
    error = np.sqrt(
        np.where(defined, positives.variance / (n * n * p) + negatives.variance / (p * p * n), np.nan)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(difference == 0, 0.0, difference / error)
    return DeLong(difference, error, z, 2 * scipy.special.ndtr(-np.abs(z)))


class _Moments(NamedTuple):
    number: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def _moments(values: np.ndarray, where: np.ndarray) -> _Moments:
    """Number, mean and variance (divisor n - 1) of the entries `where`, per column; 0 for none (one)."""
    number = where.sum(0)
    mean = np.where(where, values, 0).sum(0) / np.maximum(number, 1)
    squares = np.where(where, (values - mean) ** 2, 0).sum(0)
    return _Moments(number, mean, squares / np.maximum(number - 1, 1))
