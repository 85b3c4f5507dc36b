"""Bootstrap intervals of AUROC: what if other compounds had been measured?

A replicate draws as many groups (compounds) as there are, with replacement; every row of a group comes along as often
as its group was drawn. Instead of copying rows each row gets a weight, its number of draws, and

    AUROC = sum over active i, inactive j of w_i w_j [s_i > s_j] + w_i w_j [s_i = s_j] / 2, over the sum of w_i w_j.

The order of scores is the same in all replicates: each task is sorted once, and one pass from the lowest score to
the highest adds up all replicates of all tasks side by side. Weights and sums are whole numbers, hence exact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from coos.metrics.multitask import scores as per_task

BLOCK = 1 << 15  # replicates times tasks that are added up side by side: their sums stay in the cache


class Bootstrap(NamedTuple):
    """Intervals of T tasks from R replicates, and of the mean over tasks; float64 unless said otherwise.

    auroc, low, high, standard_error: (T,) AUROC of the data, ends of its percentile interval, and the standard
    deviation of the replicates (divisor R - 1), over the replicates with active and inactive entries.
    num_defined: (T,) int, the number of these. replicates: (R, T) float32 AUROCs, NaN where undefined.
    mean, mean_low, mean_high, mean_standard_error: the same for the mean AUROC over tasks; each replicate's mean is
    over the tasks that are defined in it.
    """

    auroc: np.ndarray
    low: np.ndarray
    high: np.ndarray
    standard_error: np.ndarray
    num_defined: np.ndarray
    replicates: np.ndarray
    mean: float
    mean_low: float
    mean_high: float
    mean_standard_error: float


def bootstrap(
    scores: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    groups: ArrayLike | None = None,
    num_replicates: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Bootstrap:
    """Percentile intervals of each task's AUROC when `groups` are drawn anew.

    scores, labels, mask: (N, T) as in `auroc`. groups: (N,) names of what is drawn, such as compounds; None draws
    rows. level: share of the replicates between the ends. Memory is O(replicates * groups + replicates * tasks).
    Raises ValueError at a NaN score of a labelled entry.
    """
    if num_replicates < 2 or not 0 < level < 1:
        raise ValueError(
            f"num_replicates={num_replicates}, level={level}: needs 2 or more, and 0 < level < 1"
        )
    packed = pack(scores, labels, mask)
    num_rows = len(np.asarray(labels))
    group = _group_numbers(groups, num_rows)
    weights = draw(int(group.max(initial=-1)) + 1, num_replicates=num_replicates, seed=seed)
    replicates = weighted_auroc(packed, group, weights)
    values = np.asarray(per_task.auroc(scores, labels, mask), np.float64)
    low, high, error = _spread(replicates.astype(np.float64), level)
    means = _mean_defined(replicates.astype(np.float64).T)
    mean_low, mean_high, mean_error = (float(x[0]) for x in _spread(means[:, None], level))
    num_defined = (~np.isnan(replicates)).sum(0)
    mean = float(_mean_defined(values[:, None])[0])
    return Bootstrap(values, low, high, error, num_defined, replicates, mean, mean_low, mean_high, mean_error)


def _group_numbers(groups: ArrayLike | None, num_rows: int) -> np.ndarray:
    """(N,) int: the number of each row's group, from 0 in the order of names."""
    if groups is None:
        return np.arange(num_rows)
    named = np.asarray(groups)
    if named.shape != (num_rows,):
        raise ValueError(f"groups must be ({num_rows},), one for each row of scores; got {named.shape}")
    return np.unique(named, return_inverse=True)[1]


def draw(num_groups: int, *, num_replicates: int, seed: int) -> np.ndarray:
    """(R, G) int32: how often each replicate draws each of G groups; every row sums to G."""
    generator = np.random.default_rng(seed)
    found = np.zeros((num_replicates, num_groups), np.int32)
    for row in found:
        row[:] = np.bincount(generator.integers(0, max(num_groups, 1), num_groups), minlength=num_groups)
    return found


class Packed(NamedTuple):
    """Labelled entries of each task from the lowest score to the highest, (L, T); L is the largest task's number.

    row: int32 row of the score, -1 where a task has fewer entries. active: bool. first: bool, whether the score is
    above the one before (the first of its ties).
    """

    row: np.ndarray
    active: np.ndarray
    first: np.ndarray


def pack(scores: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None) -> Packed:
    """Sort the labelled entries of each task by score."""
    per_task.check_shapes(scores, labels, mask)
    values, active = np.asarray(jnp.asarray(scores)), np.asarray(labels) > 0
    labelled = np.ones(values.shape, bool) if mask is None else np.asarray(mask).astype(bool)
    reject_nan(values, labelled)
    num_tasks, longest = values.shape[1], int(labelled.sum(0).max(initial=0))
    packed = Packed(
        np.full((longest, num_tasks), -1, np.int32), *(np.zeros((longest, num_tasks), bool) for _ in range(2))
    )
    for task in range(num_tasks):
        rows = np.flatnonzero(labelled[:, task])
        rows = rows[np.argsort(values[rows, task])]
        packed.row[: len(rows), task] = rows
        packed.active[: len(rows), task] = active[rows, task]
        packed.first[1 : len(rows), task] = values[rows[1:], task] > values[rows[:-1], task]
    return packed


def reject_nan(values: np.ndarray, labelled: np.ndarray) -> None:
    """Raise a ValueError that says where the first NaN score of a labelled entry is."""
    missing = np.isnan(values) & labelled
    if missing.any():
        row, task = np.argwhere(missing)[0]
        raise ValueError(
            f"{missing.sum()} scores of labelled entries are NaN, first in row {row}, task {task}"
        )


def weighted_auroc(packed: Packed, group: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(R, T) float32: AUROC where a row of group g counts `weights[r, g]` times; NaN where a class has no weight.

    group: (N,) int. weights: (R, G) whole numbers.
    """
    num_replicates, num_groups = weights.shape
    num_tasks = packed.row.shape[1]
    num_blocks = -(-num_replicates // max(BLOCK // max(num_tasks, 1), 1))
    block = -(-num_replicates // num_blocks)
    blocks = np.zeros((num_blocks, num_groups + 1, block), np.int32)  # the last group is nobody's: weight 0
    for number in range(num_blocks):
        part = weights[number * block : (number + 1) * block].T
        blocks[number, :num_groups, : part.shape[1]] = part
    member = np.where(packed.row < 0, num_groups, group[packed.row]) if len(group) else packed.row
    found = np.asarray(_weighted_auroc(blocks, member, packed.active, packed.first))
    return found.transpose(0, 2, 1).reshape(num_blocks * block, num_tasks)[:num_replicates]


@jax.jit
def _weighted_auroc(blocks: Array, group: Array, active: Array, first: Array) -> Array:
    """(blocks, T, replicates of a block): AUROC with weights `blocks` (blocks, groups + 1, replicates)."""

    def one_block(weights: Array) -> Array:
        sums = jnp.zeros((group.shape[1], weights.shape[1]), jnp.int32)

        def add(carry: tuple, entry: tuple) -> tuple[tuple, None]:
            """One entry of every task. *_below are the weights of the scores below that of this entry.

            Each pair adds 2, or 1 if tied, when its higher (or later) entry comes. Sums go up to twice the square
            of the number of rows: they are added up in two parts, the lower 11 bits and the rest.
            """
            actives, inactives, actives_below, inactives_below, low, high = carry
            weight, is_active, is_first = weights[entry[0]], entry[1][:, None], entry[2][:, None]
            actives_below = jnp.where(is_first, actives, actives_below)
            inactives_below = jnp.where(is_first, inactives, inactives_below)
            won = weight * jnp.where(is_active, inactives_below + inactives, actives - actives_below)
            actives = actives + jnp.where(is_active, weight, 0)
            inactives = inactives + jnp.where(is_active, 0, weight)
            low, high = low + (won & per_task.LOW), high + (won >> per_task.LIMB)
            return (actives, inactives, actives_below, inactives_below, low, high), None

        (actives, inactives, *_, low, high), _ = jax.lax.scan(add, (sums,) * 6, (group, active, first))
        won = per_task.join(low, high)
        defined = (actives > 0) & (inactives > 0)
        return jnp.where(defined, won / jnp.maximum(actives, 1) / jnp.maximum(inactives, 1) / 2, jnp.nan)

    return jax.lax.map(one_block, blocks)


def _mean_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(values)
    number = known.sum(0)
    return np.where(number > 0, np.where(known, values, 0).sum(0) / np.maximum(number, 1), np.nan)


def _spread(values: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ends of the percentile interval and standard deviation of each column's known values; NaN of fewer than two."""
    found = np.full((3, values.shape[1]), np.nan)
    for column, numbers in enumerate(values.T):
        known = numbers[~np.isnan(numbers)]
        if len(known) > 1:
            found[:2, column] = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
            found[2, column] = known.std(ddof=1)
    return found[0], found[1], found[2]
