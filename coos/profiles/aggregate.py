"""From single cells to wells, or from wells to perturbations: mean or median of each group of rows.

    wells = aggregate.Aggregate(method="median").transform(cells)
    wells = aggregate.aggregate_stream(deepprofiler.sites(folder), method="mean")

Missing values (NaN) are left out feature by feature; a feature without a value in a group is NaN there.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import polars as pl
from absl import logging

from coos.profiles.step import Step
from coos.profiles.table import Table, column_names, concatenate, describe, listing

WELL = ("Metadata_Plate", "Metadata_Well")
COUNT = "Metadata_cell_count"
BLOCK = 1 << 22  # values worked on at once: 32 MB in float64


@dataclasses.dataclass(kw_only=True)
class Aggregate(Step):
    """One row per group of rows, in the order in which groups first appear; there is nothing to fit.

    Args:
        by: the metadata columns whose values form the groups; none may be unknown (null or NaN).
        method: "mean" (summed in float64) or "median" (of an even number, the mean of the two in the middle).
        count: a metadata column for the number of rows of each group. If there is such a column already, its
            sum: wells made of cells and then perturbations made of wells both count cells. None: no such column.

    Metadata columns with at most one known value within every group are kept: one value beside unknown ones (null)
    holds for the group. The others are left out, and the log names them.
    """

    by: str | Sequence[str] = WELL
    method: str = "mean"
    count: str | None = COUNT

    def transform(self, data: Table) -> Table:  # type: ignore[override]
        """The aggregated table; errors as of `aggregate_stream`."""
        return aggregate_stream([data], by=self.by, method=self.method, count=self.count)


def aggregate_stream(
    tables: Iterable[Table],
    *,
    by: str | Sequence[str] = WELL,
    method: str = "mean",
    count: str | None = COUNT,
) -> Table:
    """What `Aggregate` makes of all `tables` put together, with only one or a few of them in memory.

    The mean keeps a float64 sum per group, for rows in any order. The median is exact and holds all rows of a
    group: they must stand in consecutive tables (of which some may be empty).

    Raises:
        ValueError: an unknown method, column or key; no tables, or tables with different features; counts that
            are no numbers or that some tables lack; and for medians a group that comes back after others.
    """
    by = column_names(by)
    tables = iter(tables)
    first = next(tables, None)
    if first is None:
        raise ValueError("no tables to aggregate")
    if method not in ("mean", "median"):
        raise ValueError(f"method {method!r} is neither 'mean' nor 'median'")
    everything = enumerate(itertools.chain([first], tables))
    checked = (_checked(table, f"table {number}", first, by, count) for number, table in everything)
    summary = _Summary(by, count)
    values = (_means if method == "mean" else _medians)(checked, summary)
    return Table(summary.metadata(), values, first.feature_names)


def _checked(table: Table, name: str, first: Table, by: list[str], count: str | None) -> Table:
    """`table`, with a column that counts."""
    if table.feature_names != first.feature_names:
        differing = sorted(set(table.feature_names) ^ set(first.feature_names)) or ["their order"]
        raise ValueError(f"{name} has other features than table 0; they differ in {listing(differing)}")
    table.require(*by)
    for key in table.metadata.select(by):
        if key.null_count():
            raise ValueError(
                f"{name}: {key.name} is unknown in {key.null_count()} of {len(table)} rows; drop these rows"
            )
    if count is None:
        return table
    if (count in table.metadata.columns) != (count in first.metadata.columns):
        raise ValueError(f"{name}: only some tables have a column {count}; give `count` another name")
    if count not in table.metadata.columns:
        return table.with_metadata(table.metadata.with_columns(pl.lit(1, pl.Int64).alias(count)))
    if not table.metadata[count].dtype.is_numeric() or table.metadata[count].null_count():
        raise ValueError(f"{name}: {count} is not a number in every row; give `count` another name")
    return table


class _Summary:
    """Metadata of groups: collected from parts (the rows of a group may be in several), then one row per group."""

    def __init__(self, by: list[str], count: str | None):
        self.by, self.count = by, count
        self.varying: set[str] = set()
        self.frames: list[pl.DataFrame] = []

    def add(self, table: Table) -> tuple[np.ndarray, list[tuple]]:
        """Codes (N,) of the groups of the rows of `table`, and the groups' keys."""
        codes, keys = table.groups(self.by)
        self.frames.append(self._first_rows(table.metadata, codes, keys.height))
        return codes, keys.rows()

    def _first_rows(self, metadata: pl.DataFrame, codes: np.ndarray, groups: int) -> pl.DataFrame:
        firsts = np.empty(groups, np.int64)
        firsts[codes[::-1]] = np.arange(len(codes))[::-1]  # the last to be written is the first row
        chosen = metadata.select(self._first_known(column, codes, firsts) for column in metadata)
        if self.count is None:
            return chosen
        sums = np.bincount(codes, metadata[self.count].to_numpy(), minlength=groups)
        dtype = pl.Int64 if metadata[self.count].dtype.is_integer() else pl.Float64
        return chosen.with_columns(pl.Series(self.count, sums).cast(dtype))

    def _first_known(self, column: pl.Series, codes: np.ndarray, firsts: np.ndarray) -> pl.Series:
        """The first known value of each group, of which row `firsts` is the first; notes whether there are others."""
        known = np.flatnonzero(column.is_not_null().to_numpy())
        rows = firsts.copy()
        rows[codes[known[::-1]]] = known[::-1]
        found = column.gather(rows)
        if column.name != self.count and column.gather(known).ne_missing(found.gather(codes[known])).any():
            self.varying.add(column.name)
        return found

    def metadata(self) -> pl.DataFrame:
        """One row per group, in order of first appearance, of the columns that do not vary within groups."""
        frame = pl.concat(self.frames, how="diagonal_relaxed")
        codes, keys = Table(frame, np.empty((frame.height, 0)), ()).groups(self.by)
        found = self._first_rows(frame, codes, keys.height)
        if self.varying:
            names = [name for name in frame.columns if name in self.varying]
            logging.info("left out, since they vary within %s: %s", listing(self.by), listing(names, 40))
        return found.drop(self.varying)


def _means(tables: Iterable[Table], summary: _Summary) -> np.ndarray:
    """(G, D) float32 means; one sum per group is kept, and its number of values (D numbers where some are NaN)."""
    numbers: dict[tuple, int] = {}
    sums: list[np.ndarray] = []
    valid: list[np.ndarray] = []
    width = 0
    for block in itertools.chain.from_iterable(map(_blocks, tables)):
        width = block.num_features
        codes, keys = summary.add(block)
        for key, total, present in zip(keys, *_sums(block.features, codes), strict=True):
            number = numbers.setdefault(key, len(sums))
            if number == len(sums):
                sums.append(total.copy())
                valid.append(present)
            else:
                sums[number] += total
                valid[number] = valid[number] + present
    means = np.empty((len(sums), width), np.float32)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: no value at all
        for number, total in enumerate(sums):
            means[number] = total / valid[number]
    return means


def _blocks(table: Table) -> Iterator[Table]:
    rows = max(1, BLOCK // max(1, table.num_features))
    for start in range(0, max(1, len(table)), rows):
        part = slice(start, start + rows)
        yield Table(table.metadata[part], table.features[part], table.feature_names)


def _sums(x: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums (G, D) float64 of the rows of each group without NaN, and the number of values: (G, 1) or (G, D)."""
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    missing = np.isnan(x)
    sizes = np.diff(np.append(starts, len(codes)))[:, None]
    if not missing.any():
        return np.add.reduceat(x[order], starts, axis=0, dtype=np.float64), sizes
    sums = np.add.reduceat(np.where(missing, 0, x)[order], starts, axis=0, dtype=np.float64)
    return sums, sizes - np.add.reduceat(missing[order], starts, axis=0, dtype=np.int64)


def _medians(tables: Iterable[Table], summary: _Summary) -> np.ndarray:
    """(G, D) float32 medians; a group ends with the first table that has rows, but none of its own."""
    finished: dict[tuple, np.ndarray] = {}
    numbers: dict[tuple, int] = {}
    pending: list[Table] = []
    width = 0
    for position, table in enumerate(tables):
        width = table.num_features
        _, keys = summary.add(table)
        for key in keys:
            if key in finished:
                raise ValueError(
                    f"{describe(dict(zip(summary.by, key, strict=True)))}: comes back in table {position} after "
                    f"a table without it; medians need all rows of a group together: sort by {listing(summary.by)}"
                )
            numbers.setdefault(key, len(numbers))
        if len(keys) and len(finished) + len(keys) < len(numbers):  # some pending group is not in this table
            pending = _finish(pending, set(keys), summary.by, finished)
        pending.append(table)
    _finish(pending, set(), summary.by, finished)
    medians = np.empty((len(numbers), width), np.float32)
    for key, number in numbers.items():
        medians[number] = finished[key]
    return medians


def _finish(
    pending: list[Table], going_on: set[tuple], by: list[str], finished: dict[tuple, np.ndarray]
) -> list[Table]:
    """Put medians of all groups but those `going_on` into `finished`; returns the rows of the others."""
    ending, remaining = [], []
    for table in pending:
        codes, keys = table.groups(by)
        stays = np.array([key in going_on for key in keys.rows()], bool)[codes]
        ending.append(table if not stays.any() else table.filter(~stays))
        remaining += [table if stays.all() else table.filter(stays)] if stays.any() else []
    ended = ending[0] if len(ending) == 1 else concatenate(ending)
    codes, keys = ended.groups(by)
    finished.update(zip(keys.rows(), group_medians(ended.features, codes, keys.height), strict=True))
    return remaining


def group_medians(x: np.ndarray, codes: np.ndarray, groups: int) -> np.ndarray:
    """(groups, D) float32 medians, without NaN, of the rows of `x` (N, D) by the code of their group, (N,) int."""
    sizes, order = np.bincount(codes, minlength=groups), np.argsort(codes, kind="stable")
    starts = np.cumsum(sizes) - sizes
    medians = np.full((groups, x.shape[1]), np.nan, np.float32)
    for size in np.unique(sizes[sizes > 0]):  # groups of one size are worked on together
        width = int(np.clip(BLOCK // size, 1, max(1, x.shape[1])))
        alike = np.flatnonzero(sizes == size)
        for some in np.array_split(alike, -(-len(alike) * size * width // BLOCK)):
            rows = order[starts[some][:, None] + np.arange(size)]
            for first in range(0, x.shape[1], width):
                medians[some, first : first + width] = _middle(x[rows, first : first + width])
    return medians


def _middle(x: np.ndarray) -> np.ndarray:
    """Medians (g, d) of x (g, n, d) over n without NaN, which sorting puts last."""
    x = np.ascontiguousarray(np.moveaxis(x, 1, 2))
    valid = x.shape[2] - np.isnan(x).sum(axis=2)
    low, high = np.maximum(valid - 1, 0) // 2, valid // 2
    if (valid < x.shape[2]).any():
        x.sort(axis=2)
    else:
        x.partition(((x.shape[2] - 1) // 2, x.shape[2] // 2), axis=2)
    pairs = np.take_along_axis(x, np.stack([low, high], axis=2), axis=2)
    with np.errstate(invalid="ignore"):  # the middle of -inf and inf is NaN
        return pairs.mean(axis=2, dtype=np.float64)
