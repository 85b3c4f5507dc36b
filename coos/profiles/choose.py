"""Which rows to work with: steps that keep rows, and the level of a dose to choose by.

Empty text in a column is as unknown as null, for `Fill` and `KeepShared`.

table = choose.NearestDose(column="Metadata_mmoles_per_liter", levels=(0.1, 1, 10)).transform(table)
table = choose.KeepRows(query="Metadata_dose_level = 3").transform(table)
table = choose.KeepShared(label="Metadata_moa", unit="Metadata_broad_sample").transform(table)
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import polars as pl
from absl import logging
from polars import exceptions

from coos.profiles import files
from coos.profiles.step import Step
from coos.profiles.table import Table


@dataclasses.dataclass(kw_only=True)
class KeepRows(Step):
    """Keeps the rows for which the metadata query `query` holds; where it is unknown (null) it does not hold."""

    query: str

    def transform(self, data: Table) -> Table:  # type: ignore[override]
        """The rows found, in their order; ValueError for a query that cannot be read or finds nothing."""
        return _kept(data, data.where(self.query), repr(self.query))


def _kept(data: Table, found: np.ndarray, condition: str) -> Table:
    if not found.any():
        raise ValueError(f"none of {len(data)} rows: {condition}; relax the condition or check the metadata")
    logging.info("%d of %d rows are kept: %s", found.sum(), len(data), condition)
    return data.filter(found)


@dataclasses.dataclass(kw_only=True)
class RequireUnique(Step):
    """Changes nothing, and stops where two rows have the same values of the columns `by`: a well that came twice."""

    by: str | Sequence[str] = ("Metadata_Plate", "Metadata_Well")

    def transform(self, data: Table) -> Table:  # type: ignore[override]
        """`data` itself; ValueError naming the ids that stand on several rows."""
        data.require_unique(self.by)
        return data


@dataclasses.dataclass(kw_only=True)
class Fill(Step):
    """Puts `value` where the metadata column `column` is unknown (null or ""), as that of controls often is."""

    column: str
    value: str

    def transform(self, data: Table) -> Table:  # type: ignore[override]
        """`data` with the column filled; ValueError if there is no such column or it is no text."""
        column = data.column(self.column)
        if column.dtype not in (pl.String, pl.Null):
            raise ValueError(f"{self.column} is {column.dtype}, not text; {self.value!r} cannot stand in it")
        known = _blank_as_null(column)
        logging.info("%s: %d unknown values become %r", self.column, known.null_count(), self.value)
        filled = known.cast(pl.String).fill_null(self.value)
        return data.with_metadata(data.metadata.with_columns(filled))


def _blank_as_null(column: pl.Series) -> pl.Series:
    """`column`, as text and with null for "" if it is text of any kind."""
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        return column
    return column.cast(pl.String).replace("", None)


@dataclasses.dataclass(kw_only=True)
class Extract(Step):
    """Adds a column with a part of another: the first group of a regular expression, null where it is not found.

    Batches are often part of a plate's name: `column="Metadata_Plate", pattern="^(Week[0-9]+)_"`.
    """

    column: str
    pattern: str
    output: str

    def transform(self, data: Table) -> Table:  # type: ignore[override]
        """`data` with the new column; ValueError for a column that is not text, or a pattern found nowhere."""
        column = data.column(self.column)
        if column.dtype != pl.String:
            raise ValueError(f"{self.column} is {column.dtype}, not text")
        try:
            found = column.str.extract(self.pattern, 1).alias(files.prefixed(self.output))
        except exceptions.ComputeError as error:
            raise ValueError(f"pattern {self.pattern!r}: {error}") from error
        if found.null_count() == len(data):
            raise ValueError(
                f"pattern {self.pattern!r} is in none of {self.column}, such as {column.head(3).to_list()}"
            )
        return data.with_metadata(data.metadata.with_columns(found))


@dataclasses.dataclass(kw_only=True)
class NearestDose(Step):
    """Adds the number of the nearest of some dose levels, counted from 1.

    Nearest is by the difference of doses, not of their logarithms: between 10 and 20 the border is at 15. A dose
    on the border belongs to the lower level.

    Args:
        column: the metadata column of doses, in the unit of `levels`.
        levels: the nominal doses, positive and rising.
        output: the new metadata column, int64; null where the dose is unknown or not above zero.
    """

    column: str
    levels: Sequence[float]
    output: str = "Metadata_dose_level"

    def transform(self, data: Table) -> Table:  # type: ignore[override]
        """`data` with the new column; ValueError for doses that are no numbers, or levels that do not rise."""
        levels = np.asarray(self.levels, np.float64)
        if levels.ndim != 1 or not len(levels) or not (np.diff(levels, prepend=0) > 0).all():
            raise ValueError(f"levels {self.levels} must be positive numbers that rise")
        column = data.column(self.column)
        if not column.dtype.is_numeric():
            raise ValueError(
                f"{self.column} is {column.dtype}, not a number; such as {column.head(3).to_list()}"
            )
        doses = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
        number = np.searchsorted((levels[1:] + levels[:-1]) / 2, doses) + 1
        known = pl.Series(np.isfinite(doses) & (doses > 0))
        level = pl.Series(self.output, number, pl.Int64).set(~known, None)
        return data.with_metadata(data.metadata.with_columns(level))


@dataclasses.dataclass(kw_only=True)
class KeepShared(Step):
    """Keeps the rows whose label is known (neither null nor "") and shared by several distinct known units.

    Args:
        label: the metadata column that must be shared, such as a mechanism of action; compared as a whole.
        unit: the metadata column whose distinct known values are counted, such as the compound.
        minimum: how many units must share the label.
        keep: a metadata query for rows that stay in any case, such as controls; they count as units as well.
    """

    label: str
    unit: str
    minimum: int = 2
    keep: str | None = None

    def transform(self, data: Table) -> Table:  # type: ignore[override]
        """The rows found, in their order; ValueError for an unknown column, or if nothing is found."""
        label, unit = (_blank_as_null(data.column(name)) for name in (self.label, self.unit))
        found = pl.DataFrame({"label": label, "unit": unit})
        units = pl.col("unit").drop_nulls().n_unique().over("label")
        known = pl.col("label").is_not_null() & pl.col("unit").is_not_null()
        shared = found.select(shared=known & (units >= self.minimum))["shared"].to_numpy()
        condition = f"{self.label} known and shared by at least {self.minimum} {self.unit}"
        if self.keep is None:
            return _kept(data, shared, condition)
        return _kept(data, shared | data.where(self.keep), f"{condition}, or {self.keep}")
