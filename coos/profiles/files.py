"""Tables on disk: parquet and CSV in the cytomining convention, DeepProfiler features, AnnData.

    table = files.read("plate.csv.gz")
    table = files.read("wells.csv", metadata_columns={"Image_Metadata_Plate": "Metadata_Plate"})
    files.write_parquet(table, "wells.parquet")

In the cytomining convention columns that start with `Metadata_` are metadata and all others numeric features.
Text files say nothing about types: plate and well names are always read as text, other metadata columns become
integers, floats or booleans if all their values are; empty, NA, NaN, nan and null mean unknown.
"""

import csv
import gzip
import os
import pathlib
import re
import zlib
from collections.abc import Mapping, Sequence

import polars as pl
import pyarrow as pa
import pyarrow.csv
from polars import exceptions

from coos import workdir
from coos.profiles import deepprofiler
from coos.profiles.table import PREFIX, Table, listing

NAMES = ("Metadata_Plate", "Metadata_Well")  # text, even where they look like numbers
DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
UNKNOWN = ["", "NA", "NaN", "nan", "null"]


def read(
    path: str | os.PathLike,
    *,
    metadata_columns: Sequence[str] | Mapping[str, str] = (),
    drop: Sequence[str] = (),
) -> Table:
    """A table from `.parquet`, from `.csv`, `.tsv` or `.txt` (tabs; all three also `.gz`), or from a folder.

    Args:
        path: the file; a folder is read by `deepprofiler.read`.
        metadata_columns: columns that are metadata but lack the prefix, which they get; or a mapping from such
            columns to their new names.
        drop: columns to leave out.

    Raises:
        ValueError: the file is missing, empty, damaged or cut short, two columns have one name, one has none, a
            feature is text, or there is no metadata column.
    """
    path = pathlib.Path(path)
    if path.is_dir():
        if metadata_columns or drop:
            raise ValueError(f"{path}: is a folder; metadata_columns and drop are for files")
        return deepprofiler.read(path)
    if path.suffix == ".parquet":
        frame = read_parquet_frame(path)
        metadata, features = _divide(path, frame.columns, metadata_columns, drop)
        _require_numbers(path, frame.select(features))
        known = _renamed(frame, metadata)
    else:
        metadata, features = _divide(path, _header(path), metadata_columns, drop)
        frame = _read_delimited(path, text=list(metadata), numbers=features)
        known = infer(_renamed(frame, metadata), text=NAMES)
    values = frame.select(pl.col(features).cast(pl.Float32)).to_numpy(order="c")
    return Table(known, values.reshape(frame.height, len(features)), tuple(features))


def _renamed(frame: pl.DataFrame, names: Mapping[str, str]) -> pl.DataFrame:
    return frame.select(pl.col(old).alias(new) for old, new in names.items())


def _divide(
    path: pathlib.Path, columns: Sequence[str], more: Sequence[str] | Mapping[str, str], drop: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Metadata columns with the names they get, and features."""
    renames = named_pairs(more)
    missing = [name for name in [*renames, *drop] if name not in columns]
    if missing:
        raise ValueError(f"{path}: no column {listing(missing)}; there are {listing(columns, 10)}")
    kept = [name for name in columns if name not in set(drop)]
    if "" in kept:
        raise ValueError(
            f"{path}: column {kept.index('') + 1} has no name, perhaps an index; write the file without it, "
            "or give drop=('',)"
        )
    metadata = {
        name: prefixed(renames.get(name, name)) for name in kept if name in renames or name.startswith(PREFIX)
    }
    if not metadata:
        raise ValueError(
            f"{path}: no column starts with {PREFIX!r}; found {listing(kept)}; "
            "name those that are metadata in metadata_columns"
        )
    if len(set(metadata.values())) < len(metadata):
        raise ValueError(f"{path}: two metadata columns would get one name in {metadata}; rename one of them")
    return metadata, [name for name in kept if name not in metadata]


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


def read_text_frame(path: str | os.PathLike) -> pl.DataFrame:
    """All columns of a CSV (`.csv`) or tab-separated (`.tsv`, `.txt`) file, as text; see `infer`.

    Raises:
        ValueError: the file is missing, empty, damaged or cut short, or two columns have one name.
    """
    path = pathlib.Path(path)
    return _read_delimited(path, text=_header(path), numbers=[])


def infer(frame: pl.DataFrame, *, text: Sequence[str] = ()) -> pl.DataFrame:
    """Text columns as int64, float64 or booleans where all values are; those named in `text` stay text.

    So do columns in which a number starts with a superfluous 0, such as `007`: these are names.
    """
    return frame.with_columns(_inferred(column) for column in frame if column.name not in text)


def _inferred(column: pl.Series) -> pl.Series:
    if column.null_count() == len(column) or column.str.contains(r"^[+-]?0\d").any():
        return column
    if column.str.contains(r"^([Tt]rue|TRUE|[Ff]alse|FALSE)$").all():
        return column.str.to_lowercase() == "true"
    for dtype in (pl.Int64, pl.Float64):
        try:
            return column.cast(dtype)
        except exceptions.InvalidOperationError:
            continue
    return column


def _delimiter(path: pathlib.Path) -> str:
    suffix = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if suffix not in DELIMITERS:
        raise ValueError(
            f"{path}: suffix {suffix!r} is not one of .parquet, {', '.join(DELIMITERS)} or .gz of the latter"
        )
    return DELIMITERS[suffix]


def _header(path: pathlib.Path) -> list[str]:
    delimiter, opened = _delimiter(path), gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file, delimiter=delimiter), [])
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    if not names:
        raise ValueError(f"{path}: is empty; its first line should name the columns")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{path}: columns named twice: {listing(repeated)}; rename or remove one of each")
    return names


def _read_delimited(path: pathlib.Path, *, text: Sequence[str], numbers: Sequence[str]) -> pl.DataFrame:
    """The named columns, as text or float32; every row must have as many fields as the header."""
    types = {name: pa.string() for name in text} | {name: pa.float32() for name in numbers}
    try:
        table = pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(
                use_threads=False, block_size=1 << 24
            ),  # threads do not count rows
            parse_options=pa.csv.ParseOptions(delimiter=_delimiter(path), newlines_in_values=True),
            convert_options=pa.csv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                null_values=UNKNOWN,
                strings_can_be_null=True,
            ),
        )
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: {_explanation(str(error), list(types))}") from error
    return pl.DataFrame(pl.from_arrow(table))


def _explanation(error: str, names: Sequence[str]) -> str:
    column = re.search(r"In CSV column #(\d+)", error)
    if column and "UTF8" not in error:
        name = names[int(column[1])]
        return f"column {name!r} is not all numbers ({error}); name it in metadata_columns or in drop"
    if column:
        return f"{error}; save the file as UTF-8"
    return f"{error}; was the file cut short? Write or fetch it again"


def write_parquet(table: Table, path: str | os.PathLike) -> None:
    """Write one float32 column per feature behind the metadata columns, atomically; `read` gives it back."""
    features = pl.from_numpy(table.features, schema=list(table.feature_names), orient="row")
    frame = pl.concat([table.metadata, features], how="horizontal") if features.width else table.metadata
    workdir.write_atomically(path, lambda file: frame.write_parquet(file, statistics=False), mode="wb")


def write_anndata(table: Table, path: str | os.PathLike) -> None:
    """Write an AnnData file (.h5ad), atomically: X features, obs metadata, var the feature names.

    Raises:
        ImportError: anndata is not installed.
    """
    try:
        import anndata
        import pandas as pd
    except ImportError as error:
        raise ImportError('writing AnnData needs anndata: pip install "coos[anndata]"') from error
    text = pl.selectors.by_dtype(pl.String, pl.Categorical, pl.Enum, pl.Null) | pl.selectors.temporal()
    categories = table.metadata.with_columns(text.cast(pl.String).cast(pl.Categorical))
    flags = categories.select(pl.selectors.boolean()).columns
    obs = categories.to_pandas().astype(dict.fromkeys(flags, "boolean"))
    obs.index = obs.index.astype(str)
    data = anndata.AnnData(table.features, obs=obs, var=pd.DataFrame(index=list(table.feature_names)))
    workdir.write_atomically(path, lambda file: data.write_h5ad(file.name), mode="wb")
