"""Many tasks in few numbers, and many views in one prediction per well or compound.

Means are taken on the host in float64.
"""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from coos.metrics.multitask import scores as per_task

ABOVE = (0.9, 0.8, 0.7)


def summary(
    scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None, *, threshold: float = 0.5
) -> dict[str, float]:
    """Means over tasks of AUROC, average precision and F1, and how many tasks they leave out.

    mean_auroc, std_auroc: over the tasks in which it is defined (standard deviation with divisor T);
    mean_auroc_half: over all tasks, an undefined one counted as 0.5 (published convention);
    mean_average_precision, mean_f1: over the tasks in which each is defined;
    auroc_above_0.9, auroc_above_0.8, auroc_above_0.7: numbers of tasks strictly above;
    num_tasks, undefined_auroc, undefined_average_precision, undefined_f1: numbers of tasks.

    A mean over no task is NaN. A NaN score of a labelled entry makes the means NaN: it is no undefined task.
    """
    auroc = np.asarray(per_task.auroc(scores, labels, mask), np.float64)
    precision = np.asarray(per_task.average_precision(scores, labels, mask), np.float64)
    f1 = np.asarray(per_task.f1(scores, labels, mask, threshold=threshold), np.float64)
    active, inactive = (np.asarray(n) for n in per_task.counts(labels, mask))
    both, broken = (active > 0) & (inactive > 0), _broken(scores, mask)
    return {
        "mean_auroc": _mean(auroc[both]),
        "std_auroc": float(auroc[both].std()) if both.any() else np.nan,
        "mean_auroc_half": _mean(np.where(both | broken, auroc, 0.5)),
        "mean_average_precision": _mean(precision[(active > 0) | broken]),
        "mean_f1": _mean(f1[~np.isnan(f1) | broken]),
        **{f"auroc_above_{level}": float((auroc > level).sum()) for level in ABOVE},
        "num_tasks": float(len(auroc)),
        "undefined_auroc": float((~both).sum()),
        "undefined_average_precision": float((active == 0).sum()),
        "undefined_f1": float((np.isnan(f1) & ~broken).sum()),
    }


def _broken(scores: ArrayLike, mask: ArrayLike | None) -> np.ndarray:
    """(T,) bool: is the score of any labelled entry NaN?"""
    missing = jnp.isnan(jnp.asarray(scores))
    return np.asarray((missing if mask is None else missing & jnp.asarray(mask).astype(bool)).any(0))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def average(values: ArrayLike, groups: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the rows of each group: from views (N, T) to wells or compounds.

    groups: (N,) names. Returns the names that occur, sorted (G,), and the means (G, T) float32, added up in float64.
    """
    numbers = np.asarray(values)
    names, order, firsts = _members(numbers, groups)
    sizes = np.diff(firsts, append=len(numbers))
    totals = np.add.reduceat(numbers[order].astype(np.float64), firsts) if len(names) else numbers[:0]
    return names, (totals / sizes.reshape(-1, *[1] * (numbers.ndim - 1))).astype(np.float32)


def group_labels(labels: ArrayLike, groups: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels (G, T) of the groups, in the order of `average`; all rows of a group must carry the same.

    Returns the names that occur, sorted (G,), and one row of `labels` (N, T) for each.
    """
    rows = np.asarray(labels)
    names, order, firsts = _members(rows, groups)
    group = np.repeat(np.arange(len(names)), np.diff(firsts, append=len(rows)))
    first = order[firsts]
    differs = rows[order] != rows[first][group]
    if differs.any():
        place = np.argwhere(differs)[0]
        a, b = first[group[place[0]]], order[place[0]]
        raise ValueError(
            f"group {str(names[group[place[0]]])!r} has different labels in rows {a} and {b}, task {place[1]}: "
            f"{rows[a, place[1]]} and {rows[b, place[1]]}; all rows of a group must carry the same labels"
        )
    return names, rows[first]


def _members(rows: np.ndarray, groups: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names of the groups, an order of rows in which groups lie together, and where in it each group begins."""
    named = np.asarray(groups)
    if rows.ndim != 2 or named.shape != rows.shape[:1]:
        raise ValueError(f"groups must be (N,) and values (N, T); got {named.shape} and {rows.shape}")
    order = np.argsort(named, kind="stable")
    names, firsts = np.unique(named[order], return_index=True)
    return names, order, firsts
