"""Features that say the same: which pairs correlate, and which of each pair goes."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import stats

from coos.profiles.step import Selector
from coos.profiles.table import Table

BLOCK = 1024  # features that are correlated with as many others at a time


def centered_columns(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`x` (n, D) less the mean of each column, 0 where missing; the deviation rounding makes; how many are there."""
    there = ~np.isnan(x)
    counts = np.maximum(there.sum(0), 1)
    mean = np.where(there, x, 0).sum(0, dtype=np.float64) / counts
    return np.where(there, x - mean, 0.0), counts * np.finfo(np.float64).eps * np.abs(mean), counts


@dataclasses.dataclass(kw_only=True)
class CorrelationThreshold(Selector):
    """Of each pair of features that correlate above `threshold`, drop the one that correlates more in general.

    That is the one with the larger sum of |r| over all features; with equal sums the later feature. Only
    positive correlations count for a pair, and all pairs are judged at once: a feature goes even if the one it
    lost against goes as well. `method` is "pearson", over the rows where both features are there, or
    "spearman", which refuses missing values. Constant features correlate with none.
    """

    threshold: float = 0.9
    method: str = "pearson"

    def __post_init__(self):
        if self.method not in ("pearson", "spearman"):
            raise ValueError(f"method={self.method!r}: choose 'pearson' or 'spearman'")

    def _keep(self, x: np.ndarray, names: Sequence[str], table: Table | None) -> np.ndarray:
        above, sums = _correlated(x if self.method == "pearson" else _ranked(x), self.threshold)
        place = np.empty(len(sums), int)
        place[np.argsort(np.round(sums, 8), kind="stable")] = np.arange(len(sums))
        return ~np.array([(above[i] & (place < place[i])).any() for i in range(len(sums))])


def _ranked(x: np.ndarray) -> np.ndarray:
    if np.isnan(x).any():
        raise ValueError(
            "method='spearman' cannot rank missing values; use select.DropMissing(cutoff=0) first"
        )
    return stats.rankdata(x, axis=0).astype(np.float32)  # half integers up to 2^23 are exact in float32


def _correlated(x: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """(D, D) bool: which pairs of features correlate above `threshold`; (D,): the sum of |r| of each feature."""
    d = x.shape[1]
    above, sums = np.zeros((d, d), bool), np.zeros(d)
    for i in range(0, d, BLOCK):
        rows, left = slice(i, i + BLOCK), _unit(x[:, i : i + BLOCK])
        for j in range(i, d, BLOCK):
            columns = slice(j, j + BLOCK)
            r = _correlation(left, left if i == j else _unit(x[:, columns]))
            above[rows, columns] = r > threshold
            above[columns, rows] = above[rows, columns].T
            np.abs(r, out=r)
            sums[rows] += r.sum(1)
            sums[columns] += r.sum(0) if i != j else 0
    return above, sums


def _unit(x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Columns less their mean, of length 1, zeros where missing or constant; which are there, None if all."""
    centered, rounding, counts = centered_columns(x)
    length = np.sqrt(np.einsum("nd,nd->d", centered, centered))
    centered /= np.where(length > rounding * np.sqrt(counts), length, np.inf)
    missing = np.isnan(x)
    return centered, (~missing).astype(np.float64) if missing.any() else None


def _correlation(left: tuple, right: tuple) -> np.ndarray:
    """Pearson's r (i, j) of all columns on the left with all on the right, over rows where both are there."""
    (a, in_a), (b, in_b) = left, right
    if in_a is None and in_b is None:
        return a.T @ b
    in_a, in_b = (np.ones_like(z) if there is None else there for z, there in ((a, in_a), (b, in_b)))
    count, sum_a, sum_b = np.maximum(in_a.T @ in_b, 1), a.T @ in_b, in_a.T @ b
    variances = ((a * a).T @ in_b - sum_a**2 / count) * (in_a.T @ (b * b) - sum_b**2 / count)
    return (a.T @ b - sum_a * sum_b / count) / np.sqrt(np.where(variances > 1e-24, variances, np.inf))
