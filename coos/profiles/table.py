"""A table of profiles: what is known about each row, and what was measured.

    table = Table(metadata, features, names)
    controls = table.filter(table.where("Metadata_broad_sample = 'DMSO'"))

Rows are cells, wells or perturbations. `metadata` is a polars frame whose columns start with `Metadata_` (the
cytomining convention), `features` a float32 matrix with a row for each of its rows. Tables are not changed in
place: every method returns another one. A metadata query is an SQL condition on the metadata columns, such as
`Metadata_Plate = 'SQ00015230' AND Metadata_dose > 1` (`==` does as well as `=`). What is not known is null: NaN in
metadata becomes null, so that no query, key or join takes it for a value.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from polars import exceptions, selectors

PREFIX = "Metadata_"


@dataclasses.dataclass(frozen=True)
class Table:
    """N rows: `metadata` (N rows), `features` (N, D) float32, NaN where missing, and D `feature_names`.

    Raises:
        ValueError: rows or names do not match, a metadata column lacks the prefix, a feature has it, two
            features have one name, or a finite value is too large for float32.
        TypeError: features are not numbers.
    """

    metadata: pl.DataFrame
    features: np.ndarray
    feature_names: tuple[str, ...]

    def __post_init__(self):
        features = np.asarray(self.features)
        if features.dtype.kind not in "fiub":
            raise TypeError(f"features must be numbers, they have dtype {features.dtype}")
        with np.errstate(over="ignore"):  # refused below, by name
            object.__setattr__(self, "features", np.ascontiguousarray(features, np.float32))
        object.__setattr__(self, "feature_names", tuple(self.feature_names))
        object.__setattr__(self, "metadata", nan_as_null(self.metadata))
        self._check()
        if features.dtype.kind == "f" and features.dtype.itemsize > 4:
            self._refuse_overflow(features)

    def _refuse_overflow(self, features: np.ndarray) -> None:
        """Raise ValueError if finite values of `features` became infinite in float32."""
        infinite = np.isinf(self.features)
        if infinite.any() and (infinite & np.isfinite(features)).any():
            wrong = np.flatnonzero((infinite & np.isfinite(features)).any(0)).tolist()
            raise ValueError(
                f"{len(wrong)} features have values too large for float32 (above 3.4e38): "
                f"{listing([self.feature_names[i] for i in wrong])}; correct, rescale or drop them"
            )

    def _check(self) -> None:
        names, shape = self.feature_names, self.features.shape
        if len(shape) != 2 or shape != (self.metadata.height, len(names)):
            raise ValueError(
                f"features have shape {shape}, but there are {self.metadata.height} metadata rows and "
                f"{len(names)} feature names; they must be (rows, names)"
            )
        wrong = [name for name in self.metadata.columns if not name.startswith(PREFIX)]
        if wrong:
            raise ValueError(f"metadata columns must start with {PREFIX!r}; these do not: {listing(wrong)}")
        wrong = [name for name in names if name.startswith(PREFIX)]
        if wrong:
            raise ValueError(f"these are metadata, not features: {listing(wrong)}")
        if len(set(names)) != len(names):
            raise ValueError(f"features named twice: {listing(sorted(_repeated(names)))}")

    def __len__(self) -> int:
        return self.metadata.height

    @property
    def num_features(self) -> int:
        """D, the number of features."""
        return len(self.feature_names)

    def require(self, *columns: str) -> None:
        """Raise ValueError, naming what there is, unless all these metadata columns exist."""
        missing = [name for name in columns if name not in self.metadata.columns]
        if missing:
            raise ValueError(
                f"no column {listing(missing)}; metadata columns are {listing(self.metadata.columns, 40)}"
            )

    def column(self, name: str) -> pl.Series:
        """One metadata column."""
        self.require(name)
        return self.metadata[name]

    def where(self, query: str) -> np.ndarray:
        """(N,) bool: the rows for which the condition `query` holds; an unknown value (null) does not.

        Raises:
            ValueError: the query is no text, cannot be read, names an unknown column, or is no condition.
        """
        if not isinstance(query, str):
            raise ValueError(f'query {query!r} is not text; write a condition such as "{PREFIX}dose > 1"')
        try:
            found = self.metadata.select(pl.sql_expr(query).alias("found"))["found"]
        except exceptions.PolarsError as error:
            raise ValueError(f"query {query!r}: {error}") from error
        if found.dtype != pl.Boolean:
            raise ValueError(f"query {query!r} is not a condition: it gives {found.dtype}")
        if len(found) != len(self):
            raise ValueError(
                f"query {query!r} is not about rows: it gives {len(found)} values for {len(self)}"
            )
        return found.fill_null(False).to_numpy()

    def filter(self, rows: np.ndarray) -> "Table":
        """The rows chosen by a (N,) bool mask, or those at integer positions, in that order."""
        rows = np.asarray(rows, None if len(rows) else np.int64)
        if rows.dtype == bool and rows.shape != (len(self),):
            raise ValueError(f"a mask of shape {rows.shape} for {len(self)} rows")
        positions = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Table(self.metadata[positions], self.features[positions], self.feature_names)

    def with_features(self, features: np.ndarray, names: Sequence[str] | None = None) -> "Table":
        """The same rows with other features; the names stay unless given."""
        return Table(self.metadata, features, self.feature_names if names is None else tuple(names))

    def with_metadata(self, metadata: pl.DataFrame) -> "Table":
        """The same features with another metadata frame of as many rows."""
        return Table(metadata, self.features, self.feature_names)

    def keep_features(self, keep: np.ndarray) -> "Table":
        """The features chosen by a (D,) bool mask."""
        keep = np.asarray(keep)
        if keep.dtype != bool or keep.shape != (self.num_features,):
            raise ValueError(
                f"keep must be a bool mask of {self.num_features} features, got {keep.dtype} {keep.shape}"
            )
        names = tuple(name for name, kept in zip(self.feature_names, keep, strict=True) if kept)
        return Table(self.metadata, self.features[:, keep], names)

    def groups(self, by: str | Sequence[str]) -> tuple[np.ndarray, pl.DataFrame]:
        """Codes (N,) int64 of the group of each row, and a frame with one row of keys per group.

        Groups are numbered as they first appear. Unknown keys (null) form a group of their own. ValueError unless
        `by` names columns that are there, each once.
        """
        columns = column_names(by)
        self.require(*columns)
        keys = self.metadata.select(columns)
        firsts = keys.unique(maintain_order=True).with_row_index("group")
        codes = keys.join(firsts, on=columns, how="left", nulls_equal=True, maintain_order="left")["group"]
        return codes.to_numpy().astype(np.int64), firsts.drop("group")

    def require_unique(self, by: str | Sequence[str]) -> None:
        """Raise ValueError, naming some, if two rows share the same values of these columns."""
        codes, keys = self.groups(by)
        counts = np.bincount(codes, minlength=keys.height)
        if (counts > 1).any():
            repeated = [describe(row) for row in keys.filter(counts > 1).iter_rows(named=True)]
            raise ValueError(f"{int((counts > 1).sum())} ids stand on more than one row: {listing(repeated)}")


def concatenate(tables: Iterable[Table]) -> Table:
    """All rows of tables with the same features in the same order; columns absent from some become null.

    Raises:
        ValueError: no table, their features differ, or their metadata have types that do not go together.
    """
    tables = list(tables)
    if not tables:
        raise ValueError("no tables to put together")
    names = tables[0].feature_names
    for number, table in enumerate(tables):
        if table.feature_names != names:
            differing = sorted(set(names) ^ set(table.feature_names)) or ["their order"]
            raise ValueError(f"table {number} has other features than table 0: {listing(differing)}")
    if len(tables) == 1:
        return tables[0]
    try:
        metadata = pl.concat([table.metadata for table in tables], how="diagonal_relaxed")
    except exceptions.PolarsError as error:
        raise ValueError(f"metadata of different types cannot be put together: {error}") from error
    return Table(metadata, np.concatenate([table.features for table in tables]), names)


def nan_as_null(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with null, which means unknown, where floats are NaN."""
    return frame.with_columns(selectors.float().fill_nan(None))


def column_names(by: str | Sequence[str]) -> list[str]:
    """The columns to group by, as a list; ValueError if there is none, one is no text, or one comes twice."""
    columns = list(by) if isinstance(by, Iterable) and not isinstance(by, str) else [by]
    if not columns:
        raise ValueError("name at least one column to group by")
    wrong = [name for name in columns if not isinstance(name, str)]
    if wrong:
        raise ValueError(f"columns to group by must be names, {wrong[0]!r} is {type(wrong[0]).__name__}")
    if len(set(columns)) < len(columns):
        raise ValueError(f"columns to group by are named twice: {listing(sorted(_repeated(columns)))}")
    return columns


def describe(keys: dict) -> str:
    """`Metadata_Plate=SQ1, Metadata_Well=A01`: a row of keys as an error should name it."""
    return ", ".join(f"{name}={value}" for name, value in keys.items())


def listing(names: Sequence[str], count: int = 5) -> str:
    """`a, b, c, d, e and 7 more`: the first names, as an error should list them."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(map(str, names[:count])) + more


def _repeated(names: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    return {name for name in names if name in seen or seen.add(name)}  # type: ignore[func-returns-value]
