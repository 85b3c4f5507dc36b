"""What tables of wells say about batches and controls: principal components and the batch enrichment score."""

from typing import NamedTuple

import numpy as np
import scipy.sparse.linalg

from coos.metrics import retrieval
from coos.profiles.table import Table

HEADLINE = 0.995


def batch_effect(
    table: Table, *, controls: str, batch: str, percentile: float = HEADLINE, similarity: str = "pearson"
) -> retrieval.Enrichment:
    """Batch enrichment score of the rows that match the query `controls` (Bornholdt 2021, section 4.8.2)."""
    chosen = table.filter(table.where(controls))
    if not len(chosen):
        raise ValueError(f"no row matches {controls!r}")
    batches = retrieval.encode(chosen.column(batch).to_list())
    if len(np.unique(batches[batches >= 0])) < 2:
        raise ValueError(f"the {len(chosen)} controls are all of one {batch}; a batch effect needs two")
    return retrieval.enrichment(chosen.features, batches, percentile=percentile, similarity=similarity)


def complete_features(table: Table) -> Table:
    """The table without the features that are missing or infinite in some row, as raw wells often have."""
    return table.keep_features(np.isfinite(table.features).all(0))


class FeatureSpace(NamedTuple):
    """First two principal components of a table's rows, for a look at batches and controls.

    points: (N, 2) float64. explained: (2,) shares of the total variance. batches: (N,) text or None.
    is_control: (N,) bool.
    """

    points: np.ndarray
    explained: np.ndarray
    batches: list[str | None]
    is_control: np.ndarray


def feature_space(table: Table, *, controls: str | None = None, batch: str | None = None) -> FeatureSpace:
    """`FeatureSpace` of a table, usually of wells before normalization (Bornholdt 2021, figures 4.3 and 4.19)."""
    if len(table) < 3 or table.num_features < 2 or not np.isfinite(table.features).all():
        raise ValueError(
            f"principal components need 3 rows, 2 features and no NaN; there are {len(table)} rows, "
            f"{table.num_features} features and {int((~np.isfinite(table.features)).sum())} missing values"
        )
    x = table.features - table.features.mean(0, dtype=np.float64)
    left, singular, _ = scipy.sparse.linalg.svds(x, k=2, random_state=0)
    order = np.argsort(-singular)
    points = left[:, order] * singular[order]
    return FeatureSpace(
        points=points,
        explained=singular[order] ** 2 / max(float((x * x).sum()), np.finfo(np.float64).tiny),
        batches=[None] * len(table) if batch is None else table.column(batch).cast(str).to_list(),
        is_control=np.zeros(len(table), bool) if controls is None else table.where(controls),
    )
