"""What else is known about profiles: columns of annotation files, matched by key columns.

    wells = annotate.Annotate(path="barcode_platemap.csv", on={"Plate": "Assay_Plate_Barcode"}).transform(wells)
    wells = annotate.join(wells, annotate.read_platemaps("platemap"),
                          on={"Plate_Map_Name": "plate_map_name", "Well": "well_position"})

Many rows of profiles may share one row of annotation, never the other way round: no row is lost or doubled, and
the order of rows stays. Names of columns are the same with and without the prefix `Metadata_`.
"""

import dataclasses
import glob
import os
from collections.abc import Mapping, Sequence

import polars as pl
from absl import logging
from polars import exceptions

from coos.profiles import delimited, files
from coos.profiles.step import Step
from coos.profiles.table import Table, describe, listing, nan_as_null

UNNAMED = r"^__index_level_\d+__$"  # what parquet files of pandas call an index without a name

Names = str | Sequence[str] | Mapping[str, str]


@dataclasses.dataclass(kw_only=True)
class Annotate(Step):
    """Adds the columns of a file to the metadata, as `join` does; there is nothing to fit.

    Args:
        path: a `.csv`, `.tsv`, `.txt` (tabs) or `.parquet` file, a folder of them, or a pattern such as
            `platemap/*.txt`; several files are put together.
        on: key columns: a mapping from those of the profiles to those of the annotation, or common names.
        columns: the columns to take, or a mapping from them to their new names; None: all.
        unmatched: what becomes of rows without annotation: "error", "keep" (its columns are null) or "drop".
    """

    path: str | os.PathLike
    on: Names
    columns: Names | None = None
    unmatched: str = "error"

    def transform(self, data: Table) -> Table:  # type: ignore[override]
        """The annotated table; ValueError as of `read_annotation` and `join`."""
        keys = _keys(data, self.on)
        text = [right for left, right in keys.items() if data.metadata[left].dtype == pl.String]
        frame = read_annotation(self.path, text=text)
        try:
            return join(data, frame, on=self.on, columns=self.columns, unmatched=self.unmatched)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from error


def _keys(table: Table, on: Names) -> dict[str, str]:
    keys = _prefixed(on)
    if not keys:
        raise ValueError("`on` names no column; name those that identify a row of the annotation")
    table.require(*keys)
    return keys


def _prefixed(names: Names) -> dict[str, str]:
    return {files.prefixed(left): files.prefixed(right) for left, right in files.named_pairs(names).items()}


def read_annotation(path: str | os.PathLike, *, text: Sequence[str] = ()) -> pl.DataFrame:
    """One frame of a file, of all files that match a pattern, or of all in a folder; names get the prefix.

    In text files the columns named in `text`, plates and wells are text, and the others become integers, floats or
    booleans where all values of all files are.

    Raises:
        ValueError: no file, a file that cannot be read, or files with different columns.
    """
    paths = _paths(os.fspath(path))
    frames = [
        files.read_parquet_frame(p).select(pl.exclude(UNNAMED))
        if files.is_parquet(p)
        else delimited.read_text_frame(p)
        for p in paths
    ]
    for name, frame in zip(paths, frames, strict=True):
        if frame.columns != frames[0].columns:
            raise ValueError(
                f"{name}: has columns {listing(frame.columns, 20)}; but {paths[0]} has "
                f"{listing(frames[0].columns, 20)}; files read together need the same"
            )
    try:
        frame = _with_prefix(pl.concat(frames, how="vertical_relaxed"))
    except (exceptions.PolarsError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    return (
        frame
        if any(map(files.is_parquet, paths))
        else delimited.infer(frame, text=[*delimited.NAMES, *map(files.prefixed, text)])
    )


def _paths(path: str) -> list[str]:
    if os.path.isdir(path):
        suffixes = (".parquet", *delimited.DELIMITERS, *(f"{suffix}.gz" for suffix in delimited.DELIMITERS))
        inside = glob.glob(os.path.join(glob.escape(path), "*"))
        found = [name for name in inside if name.lower().endswith(suffixes)]
    else:
        found = [path] if os.path.exists(path) else glob.glob(path, recursive=True)
    if not found:
        raise ValueError(
            f"{path}: no such file, no table in this folder, or no file that matches this pattern"
        )
    return sorted(found)


def _with_prefix(frame: pl.DataFrame) -> pl.DataFrame:
    names = [files.prefixed(name) for name in frame.columns]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"columns with and without the prefix would be the same: {listing(repeated)}; rename one"
        )
    return frame.rename(dict(zip(frame.columns, names, strict=True)))


def read_platemaps(
    path: str | os.PathLike, *, map_column: str = "plate_map_name", well_column: str = "well_position"
) -> pl.DataFrame:
    """Plate maps of a folder, a pattern or a file put together: one row per well of each map; see `read_annotation`.

    Raises:
        ValueError: as `read_annotation`; or a well has no name or occurs twice in a map.
    """
    keys = [files.prefixed(map_column), files.prefixed(well_column)]
    frame = nan_as_null(read_annotation(path, text=keys))
    try:
        _require_columns(frame, keys)
        _require_unique(frame, keys)
        if frame.select(keys).null_count().sum_horizontal().item():
            raise ValueError(f"{listing(keys)} must be known in every row")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return frame


def _require_columns(frame: pl.DataFrame, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in frame.columns]
    if missing:
        raise ValueError(
            f"the annotation has no column {listing(missing)}; it has {listing(frame.columns, 20)}"
        )


def _require_unique(frame: pl.DataFrame, keys: Sequence[str]) -> None:
    repeated = frame.group_by(keys, maintain_order=True).len().filter(pl.col("len") > 1)
    if repeated.height:
        some = map(describe, repeated.head(5).select(keys).iter_rows(named=True))
        raise ValueError(
            f"{repeated.height} keys stand on more than one row of the annotation, which differ: {'; '.join(some)}; "
            "keep one row of each, or match by more columns"
        )


def join(
    table: Table,
    frame: pl.DataFrame,
    *,
    on: Names,
    columns: Names | None = None,
    unmatched: str = "error",
) -> Table:
    """`table` with the columns of `frame` on the row that has the same values of the columns `on`.

    Keys of different types are compared as numbers if both are numbers, and as text otherwise; unknown keys (null or
    NaN) match nothing. The key columns of `frame` are not added. Rows of `frame` that are wholly identical count once.

    Args:
        table: the profiles.
        frame: the annotation; its columns get the prefix where they lack it.
        on: key columns: a mapping from those of the profiles to those of the annotation, or common names.
        columns: the columns to take, or a mapping from them to their new names; None: all.
        unmatched: what becomes of rows without annotation: "error", "keep" (new columns are null) or "drop".

    Raises:
        ValueError: an unknown column, a key on several differing rows of `frame`, profiles without annotation
            (unless `unmatched` allows them), or a column that the table has with other values.
    """
    if unmatched not in ("error", "keep", "drop"):
        raise ValueError(f"unmatched={unmatched!r} is not one of 'error', 'keep', 'drop'")
    keys = _keys(table, on)
    annotation = _prepared(frame, list(keys.values()), columns)
    rows = _match(table.metadata, annotation, keys)
    if rows.null_count():
        table, rows = _without_partner(table, rows, list(keys), unmatched)
    added = annotation.drop(set(keys.values())).select(pl.all().gather(rows))
    known = rows.is_not_null()
    for name in added.columns:
        if name in table.metadata.columns:
            _require_equal(table.metadata[name].filter(known), added[name].filter(known))
    new = [column for column in added if column.name not in table.metadata.columns]
    return table.with_metadata(table.metadata.with_columns(new))


def _prepared(frame: pl.DataFrame, keys: list[str], columns: Names | None) -> pl.DataFrame:
    """Distinct rows of the keys and the columns asked for, with one row per key and no unknown keys."""
    frame = nan_as_null(_with_prefix(frame))
    names = (
        {name: name for name in frame.columns if name not in keys} if columns is None else _prefixed(columns)
    )
    _require_columns(frame, [*keys, *names])
    taken = [pl.col(old).alias(new) for old, new in names.items() if new not in keys]
    frame = frame.select(*dict.fromkeys(keys), *taken).drop_nulls(keys)
    distinct = frame.unique(maintain_order=True)
    if distinct.height < frame.height:
        logging.info("%d annotation rows repeat others and count once", frame.height - distinct.height)
    _require_unique(distinct, keys)
    return distinct


def _match(metadata: pl.DataFrame, annotation: pl.DataFrame, keys: dict[str, str]) -> pl.Series:
    """(N,) the number of the annotation row of each profile, null where there is none."""
    pairs = [_comparable(metadata[left], annotation[right]) for left, right in keys.items()]
    left = pl.DataFrame([a.alias(str(i)) for i, (a, _) in enumerate(pairs)])
    right = pl.DataFrame([b.alias(str(i)) for i, (_, b) in enumerate(pairs)]).with_row_index("row")
    return left.join(right, on=left.columns, how="left", maintain_order="left", validate="m:1")["row"]


def _comparable(a: pl.Series, b: pl.Series) -> tuple[pl.Series, pl.Series]:
    if a.dtype == b.dtype:
        return a, b
    common = pl.Float64 if a.dtype.is_numeric() and b.dtype.is_numeric() else pl.String
    return a.cast(common), b.cast(common)


def _without_partner(
    table: Table, rows: pl.Series, keys: list[str], unmatched: str
) -> tuple[Table, pl.Series]:
    """Refuse, keep or drop the profiles without annotation."""
    lonely = table.metadata.filter(rows.is_null()).group_by(keys, maintain_order=True).len()
    first = lonely.head(5)
    named = map(describe, first.select(keys).iter_rows(named=True))
    some = "; ".join(f"{key} ({size} rows)" for key, size in zip(named, first["len"], strict=True))
    found = (
        f"{rows.null_count()} of {len(table)} rows have no annotation: {lonely.height} keys, such as {some}"
    )
    if unmatched == "error":
        raise ValueError(
            f"{found}; add them to the annotation, or allow this with unmatched='keep' or 'drop'"
        )
    logging.info("%s; they are %s", found, {"keep": "kept", "drop": "dropped"}[unmatched])
    matched = rows.is_not_null()
    return (table, rows) if unmatched == "keep" else (table.filter(matched.to_numpy()), rows.filter(matched))


def _require_equal(have: pl.Series, given: pl.Series) -> None:
    a, b = _comparable(have, given)
    differs = a.ne_missing(b)
    if differs.any():
        first = differs.arg_max() or 0
        raise ValueError(
            f"{have.name} exists already with other values in {differs.sum()} rows, such as {have[first]!r}, not "
            f"{given[first]!r}; rename it, or leave it out with `columns`"
        )
