"""Is one model better than another over many tasks? Wilcoxon's signed-rank test for all pairs of models."""

from typing import NamedTuple

import numpy as np
import scipy.stats
from jax.typing import ArrayLike

ALTERNATIVES = ("greater", "less", "two-sided")


class PairedWilcoxon(NamedTuple):
    """Tests of all ordered pairs of M models; row r, column c asks whether c outperforms r.

    p_value: (M, M) float64, NaN on the diagonal and where no task is left. num_tasks: (M, M) int, tasks with a value
    in both models; num_left_out: (M, M) int, the others; num_zero: (M, M) int, tasks without a difference, which the
    test drops.
    """

    p_value: np.ndarray
    num_tasks: np.ndarray
    num_left_out: np.ndarray
    num_zero: np.ndarray


def paired_wilcoxon(values: ArrayLike, *, alternative: str = "greater") -> PairedWilcoxon:
    """Wilcoxon's signed-rank test of every ordered pair of models on their values (M, T), such as AUROCs per task.

    p_value[r, c] belongs to the null hypothesis that values[c] - values[r] is distributed symmetrically about 0; the
    alternative "greater" is that column c outperforms row r (Hofmarcher et al. 2019, Table 3).

    `scipy.stats.wilcoxon` with its defaults: zero differences are dropped, equal ones share their mean rank; exact
    p-values for few differences, else the normal approximation without continuity correction. Where all differences
    are zero, p is 1: the statistic is then as large as it can be under any signs. Tasks that are undefined for one
    of the two models (NaN) are left out; an AUROC of 0.5 put in its place for both would be dropped as a zero.
    """
    numbers = np.asarray(values, np.float64)
    if numbers.ndim != 2:
        raise ValueError(f"values must be (models, tasks), got shape {numbers.shape}")
    if alternative not in ALTERNATIVES:
        raise ValueError(f"alternative={alternative!r}: choose one of {', '.join(ALTERNATIVES)}")
    num_models, num_tasks = numbers.shape
    p_value = np.full((num_models, num_models), np.nan)
    used, zero = np.zeros((2, num_models, num_models), int)
    for row in range(num_models):
        for column in range(num_models):
            known = ~np.isnan(numbers[row]) & ~np.isnan(numbers[column])
            difference = numbers[column, known] - numbers[row, known]
            used[row, column], zero[row, column] = len(difference), (difference == 0).sum()
            if row != column and len(difference):
                p_value[row, column] = _p_value(difference, alternative)
    return PairedWilcoxon(p_value, used, num_tasks - used, zero)


def _p_value(difference: np.ndarray, alternative: str) -> float:
    if not difference.any():
        return 1.0
    return float(scipy.stats.wilcoxon(difference, alternative=alternative).pvalue)
