"""Are pairs with one label more common among the most similar pairs? (section 3.4.2 of Bornholdt 2021)

                            matching    not matching
    similarity > threshold      a            b
    similarity <= threshold     c            d

    odds ratio = (a / b) / (c / d)

Each unordered pair is counted once. (cytominer-eval counts each twice: the same odds ratio, a far smaller p.)
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.typing import ArrayLike
from scipy import special

from coos.metrics.retrieval import inputs, pairs, ranking

CHUNK = 1 << 20


class Enrichment(NamedTuple):
    """Enrichment at one percentile, or arrays (Q, ...) for several.

    odds_ratio: (a / b) / (c / d); inf if b or c is 0, NaN if a row or column of the table is empty.
    p_value: one-sided Fisher p, P(X >= a); often 0 in floating point, when log10_p_value still tells.
    threshold: the similarity above which a pair counts as similar.
    table: ((a, b), (c, d)) int64.
    log10_p_value: log10 of p, computed in logarithms.
    corrected_odds_ratio: (a + 1/2)(d + 1/2) / ((b + 1/2)(c + 1/2)) (Haldane and Anscombe), always finite.
    """

    odds_ratio: Any
    p_value: Any
    threshold: Any
    table: Any
    log10_p_value: Any
    corrected_odds_ratio: Any


def enrichment(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    percentile: float | Sequence[float] = 0.995,
    similarity: str = "pearson",
    exclude: inputs.Exclude = None,
) -> Enrichment:
    """Odds ratio of matching against other pairs above the percentile of all pair similarities.

    Args:
        features: (N, D) numbers.
        labels: as in `precision_at_k`. Unlabelled rows are part of non-matching pairs (the thesis keeps its one
            DMSO row so); drop them first if they should not count.
        percentile: fractions in (0, 1), one or several. The threshold is the linearly interpolated quantile of
            all pairs' similarities; strictly greater ones are above.
        similarity, exclude: as in `precision_at_k`; excluded pairs are in no cell of the table.

    Returns:
        `Enrichment`, of scalars for one percentile.
    """
    fractions = np.atleast_1d(np.asarray(percentile, np.float64))
    if fractions.ndim != 1 or not ((fractions > 0) & (fractions < 1)).all():
        raise ValueError(f"percentile={percentile}: fractions strictly between 0 and 1 (0.995, not 99.5)")
    prepared = ranking.prepare(features, labels, similarity=similarity, exclude=exclude)
    return from_pairs(prepared, fractions, scalar=np.ndim(percentile) == 0)


def from_pairs(prepared: ranking.Prepared, fractions: np.ndarray, *, scalar: bool = False) -> Enrichment:
    """`enrichment` of prepared inputs."""
    counted = pairs.counts_above_quantiles(prepared, fractions)
    tables = np.stack([counted.above[:, ::-1], (counted.total - counted.above)[:, ::-1]], axis=1)
    found = from_tables(tables, thresholds=counted.threshold)
    return Enrichment(*(value[0] for value in found)) if scalar else found


def from_tables(tables: ArrayLike, *, thresholds: ArrayLike = np.nan) -> Enrichment:
    """`Enrichment` of contingency tables (Q, 2, 2) ((a, b), (c, d))."""
    tables = np.asarray(tables, np.int64)
    logs = np.array([log_fisher(table) for table in tables])
    return Enrichment(
        odds_ratio=np.array([odds_ratio(table) for table in tables]),
        p_value=np.exp(logs),
        threshold=np.broadcast_to(np.asarray(thresholds, np.float64), logs.shape),
        table=tables,
        log10_p_value=logs / np.log(10),
        corrected_odds_ratio=np.array([odds_ratio(table + 0.5) for table in tables]),
    )


def odds_ratio(table: ArrayLike) -> float:
    """Sample odds ratio (a d) / (b c) of ((a, b), (c, d)), as SciPy's `fisher_exact` reports it.

    inf if b c = 0; NaN if a row or a column sums to 0.
    """
    (a, b), (c, d) = np.asarray(table, np.float64)
    if min(a + b, c + d, a + c, b + d) == 0:
        return float("nan")
    return float("inf") if b * c == 0 else float((a * d) / (b * c))


def log_fisher(table: ArrayLike) -> float:
    """Natural logarithm of the one-sided Fisher p-value of ((a, b), (c, d)): P(X >= a) for fixed margins.

    X is hypergeometric: among n = a + b pairs drawn from N, of which K = a + c match. The terms are summed from
    a upwards relative to the first, in float64, so that nothing underflows; tables with an empty margin give 0.
    """
    (a, b), (c, d) = (tuple(int(cell) for cell in row) for row in np.asarray(table))
    if min(a, b, c, d) < 0:
        raise ValueError(f"a contingency table has counts of at least 0, got {np.asarray(table).tolist()}")
    drawn, matching, others = a + b, a + c, b + d
    largest = min(drawn, matching)
    first = _log_choose(matching, a) + _log_choose(others, b) - _log_choose(matching + others, drawn)
    total, offset = 1.0, 0.0
    for begin in range(a, largest, CHUNK):
        x = np.arange(begin, min(begin + CHUNK, largest), dtype=np.float64)
        ratios = np.log(matching - x) + np.log(drawn - x) - np.log(x + 1) - np.log(others - drawn + x + 1)
        terms = offset + np.cumsum(ratios)
        # Terms rise while below the mode and fall after it: scale by the largest so far.
        peak = max(terms.max(), 0.0)
        if peak > 0:
            first, total, terms = first + peak, total * np.exp(-peak), terms - peak
        total += np.exp(terms).sum()
        offset = terms[-1]
        if ratios[-1] < 0 and offset < np.log(total) - 45:
            break
    return min(float(first + np.log(total)), 0.0)


def _log_choose(n: int, k: int) -> float:
    """Natural logarithm of n over k."""
    return float(-np.log1p(n) - special.betaln(n - k + 1, k + 1))


def batch_enrichment(
    features: ArrayLike,
    batches: ArrayLike,
    *,
    controls: ArrayLike | None = None,
    percentile: float | Sequence[float] = 0.995,
    **options,
) -> Enrichment:
    """`enrichment` of control rows with their batch as label (section 4.8.2 of Bornholdt 2021).

    High values say that controls of one batch resemble each other more than controls of other batches: a batch
    effect. About 1 is the aim. `controls` is a (N,) bool mask, None for all rows.
    """
    mask = np.ones(len(np.asarray(batches)), bool) if controls is None else np.asarray(controls)
    if mask.dtype != bool or mask.shape != np.shape(batches)[:1]:
        raise ValueError(f"controls must be a bool mask with a value per row, got {mask.dtype} {mask.shape}")
    if not mask.any():
        raise ValueError("no row is a control")
    chosen = np.asarray(features)[mask]
    return enrichment(chosen, np.asarray(batches)[mask], percentile=percentile, **options)


def replicate_reproducibility(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    quantile: float = 0.95,
    similarity: str = "pearson",
    exclude: inputs.Exclude = None,
) -> float:
    """Share of matching pairs that are more similar than the `quantile` of non-matching pairs.

    Labels name what is replicated (compound and dose, say). Strictly greater counts; NaN without matching pairs.
    Also known as percent replicating or percent strong.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile={quantile}: a fraction strictly between 0 and 1")
    prepared = ranking.prepare(features, labels, similarity=similarity, exclude=exclude)
    counted = pairs.counts_above_quantiles(prepared, np.array([quantile]), population="unmatched")
    matching = int(counted.total[1])
    return float(counted.above[0, 1] / matching) if matching else float("nan")
