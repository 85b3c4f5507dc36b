"""From replicates to one profile: the mean, the median or the moderated z-score of rows that belong together.

    profiles = Consensus(by="Metadata_broad_sample", method="modz").transform(table)
    merged = modz(x, codes)                                                  # bare arrays

MODZ (Subramanian et al. 2017, as in pycytominer) is a weighted mean in which a replicate that resembles the others
counts more. With r_ij Spearman's correlation of replicates i and j over the features (ties get average ranks):

    w_i = max(mean over j != i of max(r_ij, 0), min_weight)        z = sum_i round(w_i / sum_j w_j, 4) x_i

Since the weights are rounded, they may add up to a little more or less than 1.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from coos.profiles import aggregate
from coos.profiles.aggregate import Aggregate
from coos.profiles.step import Step, as_matrix
from coos.profiles.table import Table

METHODS = ("mean", "median", "modz")
COUNT = "Metadata_replicates"
CELL_COUNT = aggregate.COUNT
BLOCK = 1 << 22  # values that are worked on at a time, in float64


@dataclasses.dataclass(kw_only=True)
class Consensus(Step):
    """One row per group of rows, in order of first appearance; there is nothing to fit.

    Args:
        by: the metadata columns whose values form the groups.
        method: "median" (the thesis), "mean" or "modz".
        averaged: numeric metadata columns to keep as their mean per group, where the table has them; unknown
            values are left out. The cell count, so that it can be judged beside the profiles.
        null: "error" refuses unknown keys (null, or NaN); "group" makes rows with the same unknown keys a group.

    Metadata columns with at most one known value within every group stay, as in `Aggregate`. `Metadata_replicates`
    counts the rows; tables that have it already keep counting in the same unit. Mean and median leave out missing
    values, MODZ refuses them.

    Raises:
        ValueError: unknown method, option or column, unknown keys, or (modz) missing or infinite values.
    """

    by: str | Sequence[str] = "Metadata_broad_sample"
    method: str = "median"
    averaged: Sequence[str] = (CELL_COUNT,)
    null: str = "error"

    def __post_init__(self):
        if self.method not in METHODS:
            raise ValueError(f"method={self.method!r}: choose one of {METHODS}")
        if self.null not in ("error", "group"):
            raise ValueError(f"null={self.null!r}: choose 'error' or 'group'")

    def transform(self, data: Table) -> Table:  # type: ignore[override]
        """The consensus table."""
        if self.null == "error":
            return self._merged(data, self.by)
        group = "Metadata_consensus_group"
        codes, _ = data.groups(self.by)
        numbered = data.with_metadata(data.metadata.with_columns(pl.Series(group, codes)))
        merged = self._merged(numbered, group)
        return merged.with_metadata(merged.metadata.drop(group))

    def _merged(self, data: Table, by: str | Sequence[str]) -> Table:
        found = [name for name in self.averaged if name in data.metadata.columns]
        if not found:
            return self._features_merged(data, by)
        wrong = [name for name in found if not data.metadata[name].dtype.is_numeric()]
        if wrong:
            raise ValueError(f"averaged column {wrong[0]} is {data.metadata[wrong[0]].dtype}, not a number")
        codes, keys = data.groups(by)
        others = data.with_metadata(data.metadata.drop(set(found) - set(keys.columns)))
        merged = self._features_merged(others, by)
        means = (
            data.metadata.select(found)
            .with_columns(code=codes)
            .group_by("code")
            .mean()
            .sort("code")
            .drop("code")
        )
        return merged.with_metadata(merged.metadata.with_columns(means.get_columns()))

    def _features_merged(self, data: Table, by: str | Sequence[str]) -> Table:
        if self.method != "modz":
            return Aggregate(by=by, method=self.method, count=COUNT).transform(data)
        metadata = Table(data.metadata, np.empty((len(data), 0)), ())
        rows = Aggregate(by=by, method="mean", count=COUNT).transform(metadata)
        return Table(rows.metadata, modz(data.features, data.groups(by)[0]), data.feature_names)


def modz(x: np.ndarray, codes: np.ndarray, *, min_weight: float = 0.01, decimals: int = 4) -> np.ndarray:
    """The moderated z-score (G, D) of the rows of `x` (N, D) in each group, of the dtype of `x` (a float).

    `codes` (N,) are the groups of the rows, integers 0...G-1. A group of one row stays as it is. A replicate
    whose correlations are undefined, since its features are all equal, has weight 0; if that is true of all, or
    if all weights are 0, they count the same, as in pycytominer.

    Raises:
        ValueError: missing or infinite values, codes that do not fit, or a code without rows.
    """
    x, codes = as_matrix(x), np.asarray(codes)
    if codes.shape != (len(x),) or codes.dtype.kind not in "iu" or (len(codes) and codes.min() < 0):
        raise ValueError(
            f"codes must be {len(x)} integers from 0; they are {codes.dtype} of shape {codes.shape}"
        )
    if not np.isfinite(x).all():
        raise ValueError(
            f"{int((~np.isfinite(x)).sum())} values are missing or infinite, ranks need all; drop features with "
            "select.DropMissing(cutoff=0) first"
        )
    if not np.bincount(codes).all():
        raise ValueError(
            f"{int((np.bincount(codes) == 0).sum())} groups have no rows; number them without gaps"
        )
    merged = np.empty((int(codes.max(initial=-1)) + 1, x.shape[1]), x.dtype)
    for groups, rows in _batches(codes, x.shape[1]):
        values = x[rows]
        merged[groups] = _weighted(values, _weights(values, min_weight, decimals))
    return merged


def _batches(codes: np.ndarray, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Groups (g,) of one size k, and their rows (g, k); few enough to hold (g, k, max(width, k)) values."""
    sizes, order = np.bincount(codes), np.argsort(codes, kind="stable")
    starts = np.cumsum(sizes) - sizes
    for size in np.unique(sizes):
        alike = np.flatnonzero(sizes == size)
        step = max(1, BLOCK // int(size * max(width, size, 1)))
        for first in range(0, len(alike), step):
            groups = alike[first : first + step]
            yield groups, order[starts[groups, None] + np.arange(size)]


def _weights(x: np.ndarray, min_weight: float, decimals: int) -> np.ndarray:
    """The weights (g, k) of the k replicates in each group of `x` (g, k, D)."""
    g, k, d = x.shape
    if k == 1:
        return np.ones((g, 1))
    ranks = centered_ranks(x.reshape(g * k, d)).reshape(g, k, d)
    products = ranks @ ranks.transpose(0, 2, 1)
    lengths = np.sqrt(np.einsum("gii->gi", products))
    defined = (lengths[:, :, None] * lengths[:, None]) > 0
    r = np.divide(
        products, lengths[:, :, None] * lengths[:, None], out=np.zeros_like(products), where=defined
    )
    others = defined & ~np.eye(k, dtype=bool)
    count = others.sum(2)
    weights = np.maximum((np.maximum(r, 0) * others).sum(2) / np.maximum(count, 1), min_weight) * (count > 0)
    total = weights.sum(1, keepdims=True)
    return np.round(np.divide(weights, total, out=np.full_like(weights, 1 / k), where=total > 0), decimals)


def _weighted(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """sum over k of weights (g, k) times `x` (g, k, D), (g, D) float64."""
    return (weights[:, None] @ x.astype(np.float64))[:, 0]


def centered_ranks(x: np.ndarray) -> np.ndarray:
    """Twice the average rank of each value in its row, less the mean: `x` (n, D) -> (n, D) float64 integers."""
    n, d = x.shape
    order = np.argsort(x, axis=1)
    ordered = np.take_along_axis(x, order, 1)
    tied = (ordered[:, 1:] == ordered[:, :-1]).any(1)
    places = np.broadcast_to(2.0 * np.arange(d) - (d - 1), (n, d))
    if tied.any():
        places = places.copy()
        places[tied] = _average_places(ordered[tied]) - (d - 1)
    ranks = np.empty((n, d))
    np.put_along_axis(ranks, order, places, 1)
    return ranks


def _average_places(ordered: np.ndarray) -> np.ndarray:
    """First plus last place, counted from 0, of the values equal to each in sorted rows (n, D)."""
    n, d = ordered.shape
    changes = ordered[:, 1:] != ordered[:, :-1]
    edge = np.ones((n, 1), bool)
    places = np.arange(d)
    first = np.maximum.accumulate(np.where(np.hstack([edge, changes]), places, 0), axis=1)
    last = np.minimum.accumulate(np.where(np.hstack([changes, edge]), places, d)[:, ::-1], axis=1)[:, ::-1]
    return (first + last).astype(np.float64)
