"""Feature selection: drop features that say nothing, say it twice, or cannot be trusted.

    selected = CorrelationThreshold(threshold=0.9).fit(table).transform(table)
    selected = Select(operations=("drop_na_columns", "variance_threshold")).fit(table).transform(table)

Each step learns from the reference rows which features stay (`keep_`, (D,) bool) and drops the others when it
transforms. The rules are those of pycytominer.feature_select (Bornholdt 2021, section 3.3). Missing values (NaN)
are left out unless a rule says otherwise.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from coos.profiles.correlation import CorrelationThreshold, centered_columns
from coos.profiles.step import Selector
from coos.profiles.table import Table, listing

_COMMON = {
    "freq_cut": 0.05,
    "min_variance": 1e-6,
    "corr_threshold": 0.9,
    "corr_method": "pearson",
    "na_cutoff": 0.05,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "pycytominer-0.1": _COMMON | {"unique_cut": 0.1, "outlier_cutoff": 15.0},
    "pycytominer-1.0": _COMMON | {"unique_cut": 0.01, "outlier_cutoff": 500.0},
}


@dataclasses.dataclass(kw_only=True)
class VarianceThreshold(Selector):
    """Drop features with few different values: the rule of caret's nearZeroVar in pycytominer's reading.

    A feature goes if its second most common value occurs less than `freq_cut` times as often as its most common
    one, or if it has fewer different values than `unique_cut` times the number of rows. Since version 1.7,
    pycytominer calls this frequency_threshold.
    """

    freq_cut: float = 0.05
    unique_cut: float = 0.01

    def _keep(self, x: np.ndarray, names: Sequence[str], table: Table | None) -> np.ndarray:
        ordered = np.sort(np.ascontiguousarray(x.T), axis=1)
        counts = len(x) - np.isnan(x).sum(0)
        found = np.array([_frequencies(row[:count]) for row, count in zip(ordered, counts, strict=True)])
        return (found[:, 0] >= self.freq_cut) & (found[:, 1] / len(x) >= self.unique_cut)


def _frequencies(ordered: np.ndarray) -> tuple[float, int]:
    """How often the second most common of sorted values occurs, relative to the first; number of values."""
    ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    if len(ends) < 2:
        return 0.0, min(len(ends), len(ordered))
    runs = np.diff(ends, prepend=-1)
    most = runs.argmax()
    first, runs[most] = runs[most], 0
    return runs.max() / first, len(ends)


@dataclasses.dataclass(kw_only=True)
class MinimumVariance(Selector):
    """Drop features whose population variance is not above `min_variance`, or that have no value."""

    min_variance: float = 1e-6

    def _keep(self, x: np.ndarray, names: Sequence[str], table: Table | None) -> np.ndarray:
        centered, rounding, counts = centered_columns(x)
        variance = np.einsum("nd,nd->d", centered, centered) / counts
        return variance > np.maximum(self.min_variance, rounding**2)


@dataclasses.dataclass(kw_only=True)
class DropMissing(Selector):
    """Drop features of which more than the share `cutoff` of the rows is missing."""

    cutoff: float = 0.05

    def _keep(self, x: np.ndarray, names: Sequence[str], table: Table | None) -> np.ndarray:
        return np.isnan(x).sum(0) / len(x) <= self.cutoff


@dataclasses.dataclass(kw_only=True)
class DropOutliers(Selector):
    """Drop features with a magnitude above `cutoff` in any row; meant for normalized features."""

    cutoff: float = 500.0

    def _keep(self, x: np.ndarray, names: Sequence[str], table: Table | None) -> np.ndarray:
        return ~(np.abs(x) > self.cutoff).any(0)


@dataclasses.dataclass(kw_only=True)
class Blocklist(Selector):
    """Drop features by name: a sequence, or the path of a CSV file with a column `blocklist`.

    Names without a feature are passed over: such lists are made for many experiments.
    """

    names: Sequence[str] | str | pathlib.Path = ()

    def _keep(self, x: np.ndarray, names: Sequence[str], table: Table | None) -> np.ndarray:
        listed = set(self._listed())
        return np.array([name not in listed for name in names], bool)

    def _listed(self) -> Sequence[str]:
        if not isinstance(self.names, str | pathlib.Path):
            return self.names
        frame = pl.read_csv(self.names, infer_schema=False)
        if "blocklist" not in frame.columns:
            raise ValueError(f"{self.names}: no column 'blocklist'; columns are {listing(frame.columns)}")
        return frame["blocklist"].to_list()


@dataclasses.dataclass(kw_only=True)
class NoiseRemoval(Selector):
    """Drop features whose population standard deviation within groups of rows is above `cutoff` on average.

    Groups are rows with the same value of the metadata columns `by`, such as one perturbation; all count the
    same, and rows with unknown keys (null) are left out. Needs a Table, and features on one scale.
    """

    by: str | Sequence[str] = ()
    cutoff: float = 0.8

    def _keep(self, x: np.ndarray, names: Sequence[str], table: Table | None) -> np.ndarray:
        if table is None:
            raise ValueError("NoiseRemoval groups rows by metadata, which bare arrays lack; give it a Table")
        codes, keys = table.groups(self.by)
        known = ~keys.select(pl.any_horizontal(pl.all().is_null())).to_series().to_numpy()[codes]
        order = np.argsort(codes[known], kind="stable")
        values, starts = x[known][order], np.unique(codes[known][order], return_index=True)[1]
        if not len(starts):
            raise ValueError(f"no row has known values of {self.by}; choose other columns")
        return ~(_spread_within(values, starts) > self.cutoff)


def _spread_within(x: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(D,): the mean over groups of consecutive rows of the population standard deviation; NaN without values."""
    there = ~np.isnan(x)
    counts = np.add.reduceat(there, starts, axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        means = np.add.reduceat(np.where(there, x, 0), starts, axis=0, dtype=np.float64) / counts
        groups = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(x)))
        squares = np.where(there, x - means[groups], 0.0) ** 2
        spread = np.sqrt(np.add.reduceat(squares, starts, axis=0) / counts)
        return np.where(counts > 0, spread, 0).sum(0) / (counts > 0).sum(0)


@dataclasses.dataclass(kw_only=True)
class Select(Selector):
    """Several operations in order, like pycytominer.feature_select: each sees what the ones before have left.

    `operations` are names among `OPERATIONS`. Options that are None are taken from `DEFAULTS[defaults]`; the
    versions 0.1 and 0.2 (the thesis) and those since 1.0 differ in `unique_cut` and `outlier_cutoff`. All
    operations look at the same rows, those of `reference`. `steps_` are the fitted operations.
    """

    operations: Sequence[str] = ("drop_na_columns", "variance_threshold", "correlation_threshold")
    defaults: str = "pycytominer-1.0"
    freq_cut: float | None = None
    unique_cut: float | None = None
    min_variance: float | None = None
    corr_threshold: float | None = None
    corr_method: str | None = None
    na_cutoff: float | None = None
    outlier_cutoff: float | None = None
    blocklist: Sequence[str] | str = ()
    noise_by: str | Sequence[str] = ()
    noise_cutoff: float = 0.8

    def __post_init__(self):
        if self.defaults not in DEFAULTS:
            raise ValueError(f"defaults={self.defaults!r}: choose one of {tuple(DEFAULTS)}")
        unknown = [name for name in self.operations if name not in OPERATIONS]
        if unknown or isinstance(self.operations, str):
            raise ValueError(f"operations={self.operations!r}: choose among {tuple(OPERATIONS)}")

    def _keep(self, x: np.ndarray, names: Sequence[str], table: Table | None) -> np.ndarray:
        keep, self.steps_ = np.ones(len(names), bool), []
        for name in self.operations:
            step = self._step(name)._fit(x, names, table)
            self.steps_.append(step)
            keep[keep] = step.keep_
            names = [name for name, kept in zip(names, step.keep_, strict=True) if kept]
            x = x[:, step.keep_]
        return keep

    def _step(self, operation: str) -> Selector:
        selector, options = OPERATIONS[operation]
        given = {option: getattr(self, name) for option, name in options.items()}
        defaults = {option: DEFAULTS[self.defaults].get(name) for option, name in options.items()}
        return selector(**{o: defaults[o] if value is None else value for o, value in given.items()})


OPERATIONS: dict[str, tuple[type[Selector], dict[str, str]]] = {  # class, and its options by those of Select
    "variance_threshold": (VarianceThreshold, {"freq_cut": "freq_cut", "unique_cut": "unique_cut"}),
    "minimum_variance": (MinimumVariance, {"min_variance": "min_variance"}),
    "correlation_threshold": (CorrelationThreshold, {"threshold": "corr_threshold", "method": "corr_method"}),
    "drop_na_columns": (DropMissing, {"cutoff": "na_cutoff"}),
    "drop_outliers": (DropOutliers, {"cutoff": "outlier_cutoff"}),
    "blocklist": (Blocklist, {"names": "blocklist"}),
    "noise_removal": (NoiseRemoval, {"by": "noise_by", "cutoff": "noise_cutoff"}),
}
