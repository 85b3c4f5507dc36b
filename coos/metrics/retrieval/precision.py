"""Precision and recall among the nearest neighbours of each row.

Every function returns float64 (N,) arrays, NaN for rows without a match; `mean_defined` averages them. With ties
the value is the expectation over random orders of the tied neighbours: a match with `a` neighbours above it and
`t` tied with it is among the first k with probability clip((k - a) / t, 0, 1).
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from coos.metrics.retrieval import inputs, ranking
from coos.metrics.retrieval.ranking import Ranks

R_CONVENTIONS = ("matches", "class_size")


class Scores(NamedTuple):
    """Scores of N rows: JAX arrays inside compiled functions, float64 NumPy arrays outside.

    hits: (N, K), expected matches among the first k neighbours. The others: (N,).
    """

    hits: Any
    precision_at_r: Any
    average_precision: Any
    num_matches: Any
    num_neighbors: Any


def expected_hits(ranks: Ranks, k: ArrayLike) -> Array:
    """(B,) matches among the first `k` (a number, or one for each of the B rows) neighbours, as expected."""
    k = jnp.asarray(k)[..., None]
    inside = jnp.clip((k - ranks.above) / jnp.maximum(ranks.tied, 1), 0, 1)
    return jnp.where(ranks.valid, inside, 0).sum(1)


def average_precision_of(ranks: Ranks) -> Array:
    """(B,) mean over matches of (matches at least as similar) / (neighbours at least as similar).

    Eq. 3.13 of Bornholdt 2021; with ties, scikit-learn's `average_precision_score`.
    """
    matches = ranks.matches_above + ranks.matches_tied
    precision = matches / jnp.maximum(ranks.above + ranks.tied, 1)
    return jnp.where(ranks.valid, precision, 0).sum(1) / jnp.maximum(ranks.num_matches, 1)


@functools.partial(jax.jit, static_argnames=("ks", "r"))
def score_ranks(ranks: Ranks, *, ks: tuple[int, ...] = (), r: str = "matches") -> Scores:
    """All scores of this module for B rows, from their ranks."""
    size = ranks.num_matches + (r == "class_size")
    hits = [expected_hits(ranks, k) for k in ks]
    return Scores(
        hits=jnp.stack(hits, 1) if hits else jnp.zeros((ranks.num_matches.shape[0], 0)),
        precision_at_r=expected_hits(ranks, size) / jnp.maximum(size, 1),
        average_precision=average_precision_of(ranks),
        num_matches=ranks.num_matches,
        num_neighbors=ranks.num_neighbors,
    )


def scores(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    ks: Sequence[int] = (),
    r: str = "matches",
    similarity: str = "pearson",
    exclude: inputs.Exclude = None,
) -> Scores:
    """All scores below in one pass over the similarities; arguments as there."""
    ks = tuple(check_k(k) for k in ks)
    if r not in R_CONVENTIONS:
        raise ValueError(f"r={r!r}: choose one of {R_CONVENTIONS}")
    prepared = ranking.prepare(features, labels, similarity=similarity, exclude=exclude)
    ks = tuple(min(k, prepared.num_rows) for k in ks)  # more neighbours than there are hold no more matches
    blocks = ranking.ranked_blocks(prepared, functools.partial(score_ranks, ks=ks, r=r))
    return ranking.per_row(prepared.num_rows, blocks, no_rows(len(ks)))


def no_rows(num_k: int) -> Scores:
    """Scores of no rows, for `ranking.per_row`."""
    return Scores(np.zeros((0, num_k)), *(np.zeros(0) for _ in range(4)))


def check_k(k: int) -> int:
    """`k` as an int; ValueError if it is not a whole number of at least 1."""
    if not np.issubdtype(np.asarray(k).dtype, np.number) or int(k) != k or k < 1:
        raise ValueError(f"k={k!r}: must be a whole number of at least 1")
    return int(k)


def _several(k: int | Sequence[int]) -> tuple[int, ...]:
    return (k,) if np.ndim(k) == 0 else tuple(k)  # type: ignore[arg-type, return-value]


def precision_at_k(
    features: ArrayLike, labels: ArrayLike, k: int | Sequence[int] = 10, **options
) -> np.ndarray:
    """Matches among the k most similar neighbours, divided by k (section 3.4.1 of Bornholdt 2021).

    Args:
        features: (N, D) numbers.
        labels: (N,) integers, negative = unlabelled (never matches, but is a neighbour of the others), or
            multi-hot (N, M), where rows match that share any label.
        k: one number, for (N,); or several, for (N, len(k)).
        **options: `similarity`, "pearson", "cosine" or "spearman"; `exclude`, one or several (N,) arrays of
            integers: two rows that are equal in any of them are not neighbours (same compound, same batch).

    Returns:
        float64 precision per row, NaN without any match. k is the divisor even if there are fewer neighbours.
    """
    ks = tuple(check_k(k) for k in _several(k))
    found = scores(features, labels, ks=ks, **options).hits / np.asarray(ks, float)
    return found[:, 0] if np.ndim(k) == 0 else found


def recall_at_k(features: ArrayLike, labels: ArrayLike, k: int | Sequence[int] = 10, **options) -> np.ndarray:
    """Share of a row's matches that are among its k most similar neighbours; as `precision_at_k` otherwise."""
    scored = scores(features, labels, ks=_several(k), **options)
    found = scored.hits / scored.num_matches[:, None]
    return found[:, 0] if np.ndim(k) == 0 else found


def precision_at_r(features: ArrayLike, labels: ArrayLike, *, r: str = "matches", **options) -> np.ndarray:
    """Precision among the R most similar neighbours, (N,); options as in `precision_at_k`.

    R is the number of matches of the row, class size - 1, in the code that printed the thesis' figures
    (`r="matches"`); its text (eq. 3.11) says class size (`r="class_size"`, the number of matches + 1).
    """
    return scores(features, labels, r=r, **options).precision_at_r


def average_precision(features: ArrayLike, labels: ArrayLike, **options) -> np.ndarray:
    """Average precision of each row's ranked neighbours, (N,); options as in `precision_at_k`.

    AP = mean over matches of (matches at least as similar) / (neighbours at least as similar), eq. 3.13 of
    Bornholdt 2021 and scikit-learn's `average_precision_score`, ties included.
    """
    return scores(features, labels, **options).average_precision


def nearest_neighbor_accuracy(features: ArrayLike, labels: ArrayLike, **options) -> float:
    """Share of rows whose most similar neighbour has their label; options as in `precision_at_k`.

    With `exclude=compound` this is the not-same-compound (NSC) accuracy of Ljosa et al. 2013, with
    `exclude=(compound, batch)` not-same-compound-or-batch (NSCB, Ando et al. 2017). Rows that have no match left
    are not counted; `precision_at_k(..., k=1)` has the value of every row. NaN if no row has a match.
    """
    return mean_defined(precision_at_k(features, labels, 1, **options))[0]


def mean_defined(values: ArrayLike) -> tuple[float, int]:
    """(mean of the values that are not NaN, how many these are); (NaN, 0) if there are none.

    The mean over rows of a precision is the thesis' macro average (eq. 3.10).
    """
    array = np.asarray(values, np.float64)
    defined = array[~np.isnan(array)]
    return (float(defined.mean()), len(defined)) if len(defined) else (float("nan"), 0)
