"""How good could an average precision be by chance? Null distributions, p-values, normalized scores.

Under the null hypothesis the M matches of a row stand anywhere among its L neighbours with equal probability.
AP then takes one of C(L, M) values. Where these are few, all are listed and p-values are exact; else they are
drawn. These are statistics of few small numbers, in float64 on the host; the similarities are looked at once, by
`average_precision`.
"""

import itertools
import math
from collections import Counter
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from coos.metrics.retrieval import inputs, precision
from coos.metrics.statistics.correction import benjamini_hochberg

ENUMERATED = 200_000  # placements up to which a null distribution is listed in full
TOLERANCE = 1e-6  # average precisions come in float32: closer than this is equal


class Null(NamedTuple):
    """Average precisions (S,) under the null hypothesis, ascending; `exact` if these are all there are."""

    values: np.ndarray
    exact: bool


class MeanAveragePrecision(NamedTuple):
    """Mean average precision of G groups (labels), in the order of `groups`.

    groups: (G,) the label (or column of multi-hot labels). num_rows: (G,) rows with a defined AP in it.
    value: (G,) mean AP; normalized: (G,) mean normalized AP; NaN for groups without any.
    p_value: (G,) P(null mean AP >= value), never 0. corrected_p_value: (G,) Benjamini-Hochberg adjusted.
    exact: (G,) bool, whether the null distribution was listed in full.
    """

    groups: np.ndarray
    num_rows: np.ndarray
    value: np.ndarray
    normalized: np.ndarray
    p_value: np.ndarray
    corrected_p_value: np.ndarray
    exact: np.ndarray


def average_precision_null(
    num_matches: int, num_neighbors: int, *, size: int = 10_000, seed: int = 0
) -> Null:
    """AP of `num_matches` (M >= 1) matches placed at random among `num_neighbors` (L >= M).

    All C(L, M) placements if these are at most 200,000, else `size` random ones; the seed is combined with M and
    L, so that every (M, L) has its own draws.
    """
    m, n = int(num_matches), int(num_neighbors)
    if size < 1:
        raise ValueError(f"size={size}: a null distribution needs at least one draw")
    if not 1 <= m <= n:
        raise ValueError(f"{m} matches among {n} neighbours: needs 1 <= matches <= neighbours")
    if math.comb(n, m) <= ENUMERATED:
        ranks = np.fromiter(
            itertools.chain.from_iterable(itertools.combinations(range(1, n + 1), m)), np.float64
        )
        return Null(np.sort(_average_precision_at(ranks.reshape(-1, m))), True)
    generator = np.random.default_rng([seed, m, n])
    return Null(np.sort(_average_precision_at(_placements(generator, size, m, n))), False)


def _average_precision_at(ranks: np.ndarray) -> np.ndarray:
    """AP (S,) of sorted ranks (S, M), counted from 1: the mean of i / rank of the i-th match."""
    return (np.arange(1, ranks.shape[1] + 1) / ranks).mean(1)


def _placements(generator: np.random.Generator, size: int, m: int, n: int) -> np.ndarray:
    """`size` sorted draws of m of the numbers 1..n without replacement."""
    if m * m > n:  # repeated numbers would be common: take the first m of random orders, in blocks
        block = max(1, (1 << 22) // n)
        parts = [
            np.argpartition(generator.random((min(block, size - begin), n)), m - 1, axis=1)[:, :m]
            for begin in range(0, size, block)
        ]
        return np.sort(np.concatenate(parts), axis=1) + 1.0
    found = np.sort(generator.integers(1, n + 1, (size, m)), axis=1)
    while (repeated := (np.diff(found, axis=1) == 0).any(1)).any():
        found[repeated] = np.sort(generator.integers(1, n + 1, (int(repeated.sum()), m)), axis=1)
    return found.astype(np.float64)


def expected_average_precision(num_matches: ArrayLike, num_neighbors: ArrayLike) -> np.ndarray:
    """Mean AP of M matches in random order among L: ((M - 1) / (L - 1) (L - H) + H) / L.

    H is the L-th harmonic number. NaN for M < 1; 1 for M = L.
    """
    m, n = np.asarray(num_matches, np.float64), np.asarray(num_neighbors, np.float64)
    defined = (m >= 1) & (n >= m)
    most = int(n[defined].max(initial=1))
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, most + 1))])
    h = harmonic[np.where(defined, n, 0).astype(int)]
    value = ((m - 1) / np.maximum(n - 1, 1) * (n - h) + h) / np.maximum(n, 1)
    return np.where(defined, value, np.nan)


def normalized_average_precision(
    average_precision: ArrayLike, num_matches: ArrayLike, num_neighbors: ArrayLike
) -> np.ndarray:
    """(AP - E) / (1 - E) with E from `expected_average_precision`, clipped to [-1, 1]: 0 chance, 1 perfect.

    NaN where AP is, or where every neighbour matches, so that no order could be wrong.
    """
    expected = expected_average_precision(num_matches, num_neighbors)
    room = 1 - expected
    safe = np.where(room > 1e-12, room, np.nan)
    return np.clip((np.asarray(average_precision, np.float64) - expected) / safe, -1, 1)


def p_value(observed: float, null: Null) -> float:
    """P(null >= observed): a share for a full list, (count + 1) / (size + 1) for random draws."""
    reached = len(null.values) - int(np.searchsorted(null.values, observed - TOLERANCE))
    if null.exact:
        return max(reached, 1) / len(null.values)
    return (reached + 1) / (len(null.values) + 1)


def average_precision_p_values(
    average_precision: ArrayLike, num_matches: ArrayLike, num_neighbors: ArrayLike, *, size=10_000, seed=0
) -> np.ndarray:
    """(N,) p-value of each row's AP against its own null distribution; NaN where AP is NaN."""
    values = np.asarray(average_precision, np.float64)
    found = np.full(values.shape, np.nan)
    kinds = np.stack([np.asarray(num_matches, np.float64), np.asarray(num_neighbors, np.float64)], 1)
    defined = np.flatnonzero(~np.isnan(values))
    for m, n in np.unique(kinds[defined], axis=0):
        null = average_precision_null(m, n, size=size, seed=seed)
        for row in defined[(kinds[defined] == (m, n)).all(1)]:
            found[row] = p_value(values[row], null)
    return found


def mean_average_precision(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    null_size: int = 10_000,
    seed: int = 0,
    similarity: str = "pearson",
    exclude: inputs.Exclude = None,
) -> MeanAveragePrecision:
    """Mean AP of the rows of every label, with its p-value; options as in `precision_at_k`.

    The null of a group is the mean of its rows' nulls. Rows with the same numbers of matches and neighbours share
    one null, draw by draw, as in copairs: the rows of a group see the same pairs from both ends, so their APs
    move together, and the shared null is the careful choice (independent nulls would call too much significant).
    If all rows of a group have the same numbers, its null is theirs and exact where that is listed in full.
    """
    scored = precision.scores(features, labels, similarity=similarity, exclude=exclude)
    return from_scores(scored, labels, null_size=null_size, seed=seed)


def from_scores(
    scored: precision.Scores, labels: ArrayLike, *, null_size: int = 10_000, seed: int = 0
) -> MeanAveragePrecision:
    """`mean_average_precision` from the scores of the rows."""
    ap = np.asarray(scored.average_precision)
    normalized = normalized_average_precision(ap, scored.num_matches, scored.num_neighbors)
    kinds = list(zip(scored.num_matches, scored.num_neighbors, strict=True))
    groups, members = _members(np.asarray(labels))
    nulls: dict[tuple[float, float], Null] = {}

    def judge(rows: np.ndarray) -> tuple[int, float, float, float, bool]:
        rows = rows[~np.isnan(ap[rows])]
        if not len(rows):
            return 0, np.nan, np.nan, np.nan, False
        null = _group_null(nulls, Counter(kinds[row] for row in rows), null_size, seed)
        value = float(ap[rows].mean())
        return len(rows), value, precision.mean_defined(normalized[rows])[0], p_value(value, null), null.exact

    found = np.array([judge(rows) for rows in members], np.float64).reshape(-1, 5)
    num_rows, values, means, p, exact = found.T
    corrected = benjamini_hochberg(p)
    return MeanAveragePrecision(groups, num_rows.astype(int), values, means, p, corrected, exact.astype(bool))


def _members(labels: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The groups (labels, or columns of multi-hot labels) and the rows of each."""
    if labels.ndim == 2:
        return np.arange(labels.shape[1]), [np.flatnonzero(column) for column in labels.T]
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    groups, firsts = np.unique(labels[order], return_index=True)
    return groups, np.split(order, firsts[1:]) if len(groups) else []


def _group_null(nulls: dict, kinds: Counter, size: int, seed: int) -> Null:
    """The null of the mean AP of rows of these `kinds`, {(matches, neighbours): rows}; `nulls` is a memory."""
    for m, n in kinds:
        if (m, n) not in nulls:
            nulls[m, n] = average_precision_null(m, n, size=size, seed=seed)
    members = [nulls[kind] for kind in kinds]
    if len(members) == 1:
        return members[0]
    generator = np.random.default_rng([seed, len(kinds)])
    drawn = [generator.choice(null.values, size) for null in members]
    return Null(np.sort(np.average(drawn, axis=0, weights=list(kinds.values()))), False)
