"""Tables on disk: parquet and CSV in the cytomining convention, DeepProfiler features, AnnData.

    table = files.read("plate.csv.gz")
    table = files.read("wells.csv", metadata_columns={"Image_Metadata_Plate": "Metadata_Plate"})
    screen = files.read_all(glob.glob("plates/*.csv"))
    files.write_parquet(table, "wells.parquet")

In the cytomining convention columns that start with `Metadata_` are metadata and all others numeric features.
Text files say nothing about types: plate and well names are always read as text, other metadata columns become
integers, floats or booleans if all their values are (see `infer`); empty, NA, NaN, nan and null mean unknown.
"""

import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from absl import logging
from polars import exceptions

from coos import workdir
from coos.profiles import deepprofiler
from coos.profiles.delimited import NAMES, header, infer, read_delimited
from coos.profiles.table import PREFIX, Table, concatenate, listing

INDEX = r"__index_level_\d+__|Unnamed: \d+(\.\d+)*"  # columns that pandas makes of an index without a name

Names = Sequence[str] | Mapping[str, str]


def read(path: str | os.PathLike, *, metadata_columns: Names = (), drop: Sequence[str] = ()) -> Table:
    """A table from `.parquet`, from `.csv`, `.tsv` or `.txt` (tabs; all three also `.gz`), or from a folder.

    Args:
        path: the file; a folder is read by `deepprofiler.read`.
        metadata_columns: columns that are metadata but lack the prefix, which they get; or a mapping from such
            columns to their new names.
        drop: columns to leave out. A pandas index in a parquet file, unless it is metadata, is left out anyway.

    Raises:
        ValueError: the file is missing, empty, damaged, cut short or not UTF-8, two columns have one name, one has
            none or is an index, text has a line break, a feature is text or too large for float32, or there is no
            metadata column or no feature.
    """
    if not pathlib.Path(path).is_dir():
        return read_all([path], metadata_columns=metadata_columns, drop=drop)
    if metadata_columns or drop:
        raise ValueError(f"{path}: is a folder; metadata_columns and drop are for files")
    return deepprofiler.read(path)


def read_all(
    paths: Iterable[str | os.PathLike], *, metadata_columns: Names = (), drop: Sequence[str] = ()
) -> Table:
    """All rows of files with the same features, in one table; metadata that a file lacks are null in its rows.

    Types are inferred from all text files together: where one has 3 and another "vehicle", both are text.

    Raises:
        ValueError: no files, files with different features, or as of `read`; the file is named.
    """
    found = [pathlib.Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]
    if not found:
        raise ValueError("no files to read")
    tables = [_read_untyped(path, metadata_columns, drop) for path in found]
    names = tables[0].feature_names
    for path, table in zip(found, tables, strict=True):
        if table.feature_names != names:
            differing = sorted(set(names) ^ set(table.feature_names)) or ["their order"]
            raise ValueError(
                f"{path}: has other features than {found[0]}; they differ in {listing(differing)}; read such files "
                "apart, or leave features out with drop"
            )
    return concatenate(_typed(tables, [not is_parquet(path) for path in found]))


def _typed(tables: Sequence[Table], is_text: Sequence[bool]) -> Iterator[Table]:
    """The tables, with types for the metadata of those from text files."""
    untyped = [table.metadata for table, text in zip(tables, is_text, strict=True) if text]
    typed = infer(pl.concat(untyped, how="diagonal"), text=NAMES) if untyped else pl.DataFrame()
    start = 0
    for table, text in zip(tables, is_text, strict=True):
        yield table.with_metadata(typed[start : start + len(table)]) if text else table
        start += len(table) if text else 0


def _read_untyped(path: pathlib.Path, metadata_columns: Names, drop: Sequence[str]) -> Table:
    """One file; metadata of a text file are text."""
    if is_parquet(path):
        frame = read_parquet_frame(path)
        index = _pandas_index(path, frame.columns, metadata_columns)
        metadata, features = _divide(path, frame.columns, metadata_columns, [*drop, *index])
        _require_numbers(path, frame.select(features))
    else:
        columns = header(path)
        metadata, features = _divide(path, columns, metadata_columns, drop)
        types = dict.fromkeys(metadata, pa.string()) | dict.fromkeys(features, pa.float64())
        frame = read_delimited(path, {name: types.get(name, pa.binary()) for name in columns})
    known = frame.select(pl.col(old).alias(new) for old, new in metadata.items())
    values = frame.select(_as_float(frame[name]) for name in features).to_numpy(order="c")
    try:
        return Table(known, values.reshape(frame.height, len(features)), tuple(features))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _as_float(column: pl.Series) -> pl.Series:
    """As float32, or as it is if it is float64: `Table` refuses what is too large."""
    return column if column.dtype == pl.Float64 else column.cast(pl.Float32)


def is_parquet(path: str | os.PathLike) -> bool:
    """Whether the name of a file says that it is parquet."""
    return pathlib.Path(path).suffix.lower() == ".parquet"


def _pandas_index(path: pathlib.Path, columns: Sequence[str], metadata_columns: Names) -> list[str]:
    """Columns that pandas wrote as the index of its frame, and that are not metadata."""
    stored = pq.read_schema(path).metadata or {}
    listed = json.loads(stored.get(b"pandas", b"{}")).get("index_columns", [])
    kept = named_pairs(metadata_columns)
    index = [name for name in columns if name in listed and name not in kept and not name.startswith(PREFIX)]
    if index:
        logging.info("%s: %s, the index of a pandas frame, is left out", path, listing(index))
    return index


def _divide(
    path: pathlib.Path, columns: Sequence[str], more: Names, drop: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Metadata columns with the names they get, and features."""
    renames = named_pairs(more)
    missing = [name for name in [*renames, *drop] if name not in columns]
    if missing:
        raise ValueError(f"{path}: no column {listing(missing)}; there are {listing(columns, 10)}")
    kept = [name for name in columns if name not in set(drop)]
    metadata = {
        name: prefixed(renames.get(name, name)) for name in kept if name in renames or name.startswith(PREFIX)
    }
    features = [name for name in kept if name not in metadata]
    _refuse_index(path, kept, features)
    alone = "" if len(columns) > 1 else "; only commas, or tabs in .tsv and .txt, separate columns"
    if not metadata:
        raise ValueError(
            f"{path}: no column starts with {PREFIX!r}; found {listing(kept)}; "
            f"name those that are metadata in metadata_columns{alone}"
        )
    if len(set(metadata.values())) < len(metadata):
        raise ValueError(f"{path}: two metadata columns would get one name in {metadata}; rename one of them")
    if not features:
        raise ValueError(f"{path}: has no features, all columns are metadata: {listing(kept)}{alone}")
    return metadata, features


def _refuse_index(path: pathlib.Path, kept: Sequence[str], features: Sequence[str]) -> None:
    if "" in kept:
        raise ValueError(
            f"{path}: column {kept.index('') + 1} has no name, perhaps an index; write the file without it, "
            "or give drop=('',)"
        )
    for name in features:
        if re.fullmatch(INDEX, name):
            raise ValueError(
                f"{path}: column {name!r} is the index of a pandas frame, not a feature; write the table with "
                "index=False, or name it in `drop`"
            )


def named_pairs(names: str | Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """A mapping as it is, and names as a mapping from each name to itself."""
    if isinstance(names, str):
        return {names: names}
    return dict(names.items()) if hasattr(names, "items") else {name: name for name in names}


def prefixed(name: str) -> str:
    """`Metadata_<name>`, or `name` itself if it has the prefix."""
    return name if name.startswith(PREFIX) else PREFIX + name


def read_parquet_frame(path: str | os.PathLike) -> pl.DataFrame:
    """All columns of a parquet file; ValueError with its path if it is missing or damaged."""
    try:
        return pl.read_parquet(pathlib.Path(path), glob=False, hive_partitioning=False)
    except (exceptions.PolarsError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as parquet ({error}); write it again") from error


def _require_numbers(path: pathlib.Path, features: pl.DataFrame) -> None:
    for column in features:
        if not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
            row = column.is_not_null().arg_max() or 0
            raise ValueError(
                f"{path}: column {column.name!r} is {column.dtype}, not numbers (row {row} holds "
                f"{column.slice(row, 1).to_list()}); name it in metadata_columns or in drop"
            )


def write_parquet(table: Table, path: str | os.PathLike) -> None:
    """Write one float32 column per feature behind the metadata columns, atomically; `read` gives it back."""
    features = pl.from_numpy(table.features, schema=list(table.feature_names), orient="row")
    frame = pl.concat([table.metadata, features], how="horizontal") if features.width else table.metadata
    workdir.write_atomically(path, lambda file: frame.write_parquet(file, statistics=False), mode="wb")


def write_anndata(table: Table, path: str | os.PathLike) -> None:
    """Write an AnnData file (.h5ad), atomically: X features, obs metadata, var the feature names.

    Raises:
        ImportError: anndata is not installed.
        ValueError: a metadata column of a type that AnnData files cannot hold, such as lists.
    """
    try:
        import anndata
        import pandas as pd
    except ImportError as error:
        raise ImportError('writing AnnData needs anndata: pip install "coos[anndata]"') from error
    text = pl.selectors.by_dtype(pl.String, pl.Categorical, pl.Enum, pl.Null, pl.Date, pl.Datetime, pl.Time)
    simple = text | pl.selectors.integer() | pl.selectors.float() | pl.selectors.boolean()
    for column in table.metadata.select(~simple):
        raise ValueError(
            f"AnnData cannot hold {column.name}, which is {column.dtype}; make it text or drop it"
        )
    categories = table.metadata.with_columns(text.cast(pl.String).cast(pl.Categorical))
    flags = categories.select(pl.selectors.boolean()).columns
    obs = categories.to_pandas().astype(dict.fromkeys(flags, "boolean"))
    obs.index = obs.index.astype(str)
    data = anndata.AnnData(table.features, obs=obs, var=pd.DataFrame(index=list(table.feature_names)))
    workdir.write_atomically(path, lambda file: data.write_h5ad(file.name), mode="wb")
