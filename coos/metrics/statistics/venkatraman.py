"""Do two models have the same ROC curve? A permutation test on paired ranks (Venkatraman & Begg 1996).

Rank the n subjects of a task by model 1, and by model 2, from 1. Cut at rank k: the errors of a model are its active
subjects with rank <= k and its inactive ones with rank > k. The statistic is

    E = sum over k of |errors_2(k) - errors_1(k)|.

If the models are equally good, a subject's two ranks may be exchanged. A permutation exchanges each subject's with
probability 1/2, ranks each model's numbers anew, ties in random order, and takes E again; p is the share of the
permutations (and the data) with an E as large as that of the data.

Two observations make this cheap. E is the area between the two ROC curves, counted in squares of one pair:
E = 2 sum_v |F_1(v) - F_2(v)|, where F_m(v) counts the active subjects of model m with at most v inactive ones ranked
below them. (errors_m(k) is a constant plus the active minus the inactive among the first k; between two meetings of
the curves, the area is the same along diagonals and along rows.) By symmetry the roles of the classes can be
exchanged, so that F counts the rarer class. And numbers to be ranked are integers from 1 to n of which at most two
are equal: a running count ranks them, no sort is needed. The tasks lie one behind the other in one long line.

Initial ties: the order within equal scores is drawn at random, the same for both models. By order of appearance, it
would carry whatever the rows are sorted by (the label, say); independent orders would tell identical models apart.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from coos.metrics.multitask.bootstrap import reject_nan
from coos.metrics.multitask.scores import check_shapes

BLOCK = 1 << 22  # entries times permutations in memory at once
WORD = 32


class Venkatraman(NamedTuple):
    """Per task, (T,): p_value (float64), NaN where a class is absent, and `area`, the observed area between the two
    ROC curves after ties were broken (float64, 0 to 1, NaN likewise): E / (2 active inactive)."""

    p_value: np.ndarray
    area: np.ndarray


def venkatraman(
    scores_1: ArrayLike,
    scores_2: ArrayLike,
    labels: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    num_permutations: int = 2000,
    seed: int = 0,
) -> Venkatraman:
    """Two-sided paired permutation test that two models' ROC curves are equal, for every task.

    scores_1, scores_2, labels, mask: (N, T) as in `multitask.auroc`. p = (b + 1) / (num_permutations + 1), where b
    permutations reach the observed statistic: never 0. Raises ValueError at a NaN score of a labelled entry.
    """
    if num_permutations < 1:
        raise ValueError(f"num_permutations={num_permutations}: a permutation test needs at least one")
    line = line_up(scores_1, scores_2, labels, mask, seed=seed)
    size = len(line.second) + len(line.observed)
    words = min(max(BLOCK // max(size, 1) // WORD, 1), -(-num_permutations // WORD))
    keys = jax.random.split(jax.random.key(seed), -(-num_permutations // (words * WORD)))
    reached = np.asarray(_count_reached(line, keys, num_permutations, words), np.int64).sum(0)
    pairs = line.num_counted.astype(np.float64) * line.num_other
    defined = pairs > 0
    p_value = np.where(defined, (reached + 1) / (num_permutations + 1), np.nan)
    return Venkatraman(p_value, np.where(defined, line.observed / np.where(defined, pairs, 1), np.nan))


class Line(NamedTuple):
    """The E labelled entries of all tasks in one line: task by task, and in it by the rank in model 1.

    Place k of the line holds subject k, which has this rank in model 1, and `second[k]`, which has it in model 2.
    counted: (E,) 1 for subjects of the class whose ranks are counted (the rarer one of the task).
    place_1, place_2: places k where subject k (second[k]) is counted. task_1, task_2: the tasks of these places.
    others: (E,) subjects that are not counted at earlier places, of both models together. ends: (T,) last of the
    values 0 to num_other that a task's counted subjects can have, all tasks' values in one line as well.
    num_counted, num_other: (T,) sizes of the classes. observed: (T,) E / 2 of the data. All are int32.
    """

    second: np.ndarray
    counted: np.ndarray
    place_1: np.ndarray
    place_2: np.ndarray
    task_1: np.ndarray
    task_2: np.ndarray
    others: np.ndarray
    ends: np.ndarray
    num_counted: np.ndarray
    num_other: np.ndarray
    observed: np.ndarray


def line_up(
    scores_1: ArrayLike, scores_2: ArrayLike, labels: ArrayLike, mask: ArrayLike | None = None, *, seed: int
) -> Line:
    """Rank the labelled entries of each task in both models; equal scores in one random order for both."""
    first, second = (np.asarray(jnp.asarray(scores)) for scores in (scores_1, scores_2))
    active = np.asarray(labels) > 0
    labelled = np.ones(active.shape, bool) if mask is None else np.asarray(mask).astype(bool)
    for values in (first, second):
        check_shapes(values, active, labelled)
        reject_nan(values, labelled)
    num_tasks, generator = active.shape[1], np.random.default_rng(seed)
    seconds, classes = [np.zeros(0, int)], [np.zeros(0, bool)]
    observed, begin = np.zeros(num_tasks, np.int64), 0
    for task in range(num_tasks):
        rows = generator.permutation(np.flatnonzero(labelled[:, task]))
        in_1, in_2 = (rows[np.argsort(x[rows, task], kind="stable")] for x in (first, second))
        counted = active[:, task] == (2 * active[rows, task].sum() <= len(rows))
        place = np.empty(len(active), int)
        place[in_1] = np.arange(begin, begin + len(rows))
        seconds.append(place[in_2])
        classes.append(counted[in_1])
        observed[task] = statistic(counted[in_1], counted[in_2]) // 2
        begin += len(rows)
    return _line(np.concatenate(seconds), np.concatenate(classes), [len(x) for x in classes[1:]], observed)


def statistic(active_1: np.ndarray, active_2: np.ndarray) -> int:
    """E from whether the subjects are active, in the order of their ranks in model 1 and in model 2, (n,) bool each."""
    curves = (np.cumsum(np.where(active, 1, -1)) for active in (active_1, active_2))
    return int(np.abs(np.subtract(*curves)).sum())


def _line(second: np.ndarray, counted: np.ndarray, lengths: list[int], observed: np.ndarray) -> Line:
    """The parts of `Line` that follow from the first two and the tasks' `lengths`."""
    task = np.repeat(np.arange(len(lengths)), lengths)
    places = np.flatnonzero(counted), np.flatnonzero(counted[second])
    num_counted = np.bincount(task[places[0]], minlength=len(lengths))
    num_other = np.asarray(lengths, int) - num_counted
    if (num_counted * num_other >= 1 << 31).any():
        most = (num_counted * num_other).argmax()
        raise ValueError(f"task {most} has 2^31 pairs of an active and an inactive entry or more: too many")
    at_place = 2 - counted.astype(int) - counted[second]
    others, ends = np.cumsum(at_place) - at_place, np.cumsum(num_other + 1) - 1
    parts = [second, counted, *places, task[places[0]], task[places[1]], others, ends]
    return Line(*(np.asarray(part, np.int32) for part in [*parts, num_counted, num_other, observed]))


@functools.partial(jax.jit, static_argnames="words")
def _count_reached(line: Line, keys: Array, num_permutations: ArrayLike, words: int) -> Array:
    """(blocks, T): how many permutations of each block reach the observed statistic; 32 * words to a block."""

    def one_block(numbered: tuple[Array, Array]) -> Array:
        number, key = numbered
        random = jax.random.bits(key, (2, len(line.second), words, 1), jnp.uint32)
        bits = (random >> jnp.arange(WORD, dtype=jnp.uint32)) & 1
        swapped, coin = bits.reshape(2, len(line.second), words * WORD) == 1
        index = number * words * WORD + jnp.arange(words * WORD)
        reached = permuted(line, swapped, coin) >= line.observed[:, None]
        return (reached & (index < num_permutations)).sum(1)

    return jax.lax.map(one_block, (jnp.arange(len(keys)), keys))


def permuted(line: Line, swapped: Array, coin: Array) -> Array:
    """E / 2 (T, B) of B permutations.

    swapped: (E, B) bool, whether the two ranks of subject k (by its place in model 1) are exchanged. coin: (E, B)
    bool, whether of two subjects that end up with equal ranks k in one model the one from model 2 comes first.

    After the exchange, subject k has rank k in model 1, unless swapped, else in model 2; and subject second[k] has
    it in model 2, unless swapped, else in model 1.
    """
    other_1 = 1 - line.counted
    other_2 = other_1[line.second]
    swapped_2 = swapped[line.second]

    def step(below: Array, place: tuple) -> tuple[Array, Array]:
        """Running number (B,) of others in model 1; in both models together it is the same in all permutations."""
        is_1, is_2, out, into = place
        return below + is_1 * (1 - out) + is_2 * into, below

    places = other_1, other_2, swapped.astype(jnp.int32), swapped_2.astype(jnp.int32)
    below_1 = jax.lax.scan(step, jnp.zeros(swapped.shape[1], jnp.int32), places)[1]
    below_2 = jnp.asarray(line.others)[:, None] - below_1
    tied = swapped != swapped_2
    at_1 = jnp.where(swapped, below_2, below_1) + (tied & coin) * other_2[:, None]
    at_2 = jnp.where(swapped_2, below_1, below_2) + (tied & ~coin) * other_1[:, None]
    values = jnp.concatenate(
        [at_1[line.place_1] + line.task_1[:, None], at_2[line.place_2] + line.task_2[:, None]]
    )
    signs = jnp.concatenate(
        [1 - 2 * swapped[line.place_1].astype(jnp.int32), 2 * swapped_2[line.place_2].astype(jnp.int32) - 1]
    )
    return _areas(values, signs, jnp.asarray(line.ends), size=len(line.second) + len(line.observed))


def _areas(values: Array, signs: Array, ends: Array, *, size: int) -> Array:
    """Sum over v of |F_1(v) - F_2(v)| (T, B) from the counted subjects' `values` (2 C, B), 0 to num_other by task.

    Task t has num_other[t] + 1 values, one task behind the other, `size` or fewer in all; `signs` are 1 in model 1
    and -1 in model 2. At the end of a task both models have all their subjects, so that the running difference
    begins the next one at 0.
    """
    width = values.shape[1]
    flat = values * width + jnp.arange(width)
    histogram = jnp.zeros(size * width, jnp.int32).at[flat.ravel()].add(signs.ravel()).reshape(size, width)

    def step(carry: tuple, changes: Array) -> tuple[tuple, Array]:
        difference, total = carry[0] + changes, carry[1] + jnp.abs(carry[0] + changes)
        return (difference, total), total

    zero = jnp.zeros(width, jnp.int32)
    totals = jax.lax.scan(step, (zero, zero), histogram)[1][ends]
    return jnp.diff(totals, axis=0, prepend=0)  # right even where the total has overflowed
