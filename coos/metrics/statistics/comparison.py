"""Which tasks does one model predict better than another, beyond luck?"""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from coos.metrics import multitask
from coos.metrics.statistics.correction import benjamini_hochberg
from coos.metrics.statistics.delong import delong
from coos.metrics.statistics.venkatraman import venkatraman

TESTS = ("venkatraman", "delong")


class Comparison(NamedTuple):
    """Per task, (T,): the p-value, and corrected over tasks (float64, NaN where undefined); the AUROC of the first
    model minus that of the second (float64, NaN where undefined); outcome (int): 1 where the first is significantly
    better, -1 where the second is, 0 where neither or undefined."""

    p_value: np.ndarray
    corrected_p_value: np.ndarray
    difference: np.ndarray
    outcome: np.ndarray


def compare(
    scores_1: ArrayLike,
    scores_2: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    test: str = "venkatraman",
    level: float = 0.05,
    num_permutations: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Test every task, correct for their number (Benjamini-Hochberg), and say who wins (Hofmarcher et al., Figure 4).

    scores_1, scores_2, labels, mask: (N, T) as in `multitask.auroc`. `test` is "venkatraman" (equal ROC curves, with
    `num_permutations` and `seed`) or "delong" (equal AUROCs). A task is significant if its corrected p-value is at
    most `level`; the winner is who has the higher AUROC. Curves that differ and yet have equal AUROCs are 0.
    """
    if test not in TESTS:
        raise ValueError(f"test={test!r}: choose one of {', '.join(TESTS)}")
    if test == "delong":
        p_value = delong(scores_1, scores_2, labels, mask).p_value
    else:
        options = {"num_permutations": num_permutations, "seed": seed}
        p_value = venkatraman(scores_1, scores_2, labels, mask, **options).p_value
    corrected = benjamini_hochberg(p_value)
    first, second = (np.asarray(multitask.auroc(s, labels, mask), np.float64) for s in (scores_1, scores_2))
    significant = np.nan_to_num(corrected, nan=np.inf) <= level
    outcome = np.where(significant, np.sign(first - second), 0).astype(int)
    return Comparison(p_value, corrected, first - second, outcome)
