"""Text files with columns: `.csv` (commas), `.tsv` and `.txt` (tabs), each also `.gz`; all values as text, and types.

    frame = infer(read_text_frame("barcode_platemap.csv"), text=NAMES)

Such files say nothing about types, so they are inferred; empty, NA, NaN, nan and null mean unknown.
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
import pyarrow.compute as pc
import pyarrow.csv
from absl import logging

from coos.profiles.table import listing

NAMES = ("Metadata_Plate", "Metadata_Well")  # text, even where they look like numbers
DELIMITERS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
UNKNOWN = ["", "NA", "NaN", "nan", "null"]
INTEGER = r"^-?(0|[1-9][0-9]{0,14})$"
NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-][0-9]+)?$"
BOOLEANS = (["true", "false"], ["True", "False"], ["TRUE", "FALSE"])


def read_text_frame(path: str | os.PathLike) -> pl.DataFrame:
    """All columns of a CSV (`.csv`) or tab-separated (`.tsv`, `.txt`) file, as text; see `infer`.

    Raises:
        ValueError: the file is missing, empty, damaged or cut short, or two columns have one name.
    """
    path = pathlib.Path(path)
    return read_delimited(path, dict.fromkeys(header(path), pa.string()))


def infer(frame: pl.DataFrame, *, text: Sequence[str] = ()) -> pl.DataFrame:
    """Text columns as int64, float64 or booleans where all known values are; those named in `text` stay text.

    Neither integers nor floats have a superfluous 0 (`007`) or a plus in front, or more than 15 digits without
    a decimal point: those are names. In floats some value has a point or an exponent with its sign (`0.003`, `1e-05`,
    but not `12E4`). Booleans are true and false, in one of the spellings of `BOOLEANS`.
    """
    return frame.with_columns(_inferred(column) for column in frame if column.name not in text)


def _inferred(column: pl.Series) -> pl.Series:
    known = column.drop_nulls().unique(maintain_order=True)
    if known.is_empty():
        return column
    if any(known.is_in(spelling).all() for spelling in BOOLEANS):
        return column.str.to_lowercase() == "true"
    if not (known.str.contains(INTEGER).all() or _are_floats(known)):
        return column
    numbers = column.cast(pl.Int64 if known.str.contains(INTEGER).all() else pl.Float64)
    same = known.cast(numbers.dtype)
    if same.is_duplicated().any():
        example = known.filter(same == same.filter(same.is_duplicated())[0])
        logging.info(
            "column %s: texts become one number, such as %s", column.name, listing(example.to_list())
        )
    return numbers


def _are_floats(known: pl.Series) -> bool:
    fraction = known.str.contains("[.eE]")
    if not (fraction.any() and known.str.contains(NUMBER).all()):
        return False
    digits = known.filter(~fraction).str.strip_chars_start("-0").str.len_bytes()
    return bool((digits <= 15).all() and known.cast(pl.Float64).is_finite().all())


def _delimiter(path: pathlib.Path) -> str:
    suffix = (path.with_suffix("") if _is_gzip(path) else path).suffix.lower()
    if suffix not in DELIMITERS:
        raise ValueError(
            f"{path}: suffix {suffix!r} is not one of .parquet, {', '.join(DELIMITERS)} or .gz of the latter"
        )
    return DELIMITERS[suffix]


def _is_gzip(path: pathlib.Path) -> bool:
    return path.suffix.lower() == ".gz"


def header(path: pathlib.Path) -> list[str]:
    """The names of the columns; ValueError if the file cannot be read, is empty, or names a column twice."""
    delimiter, opened = _delimiter(path), gzip.open if _is_gzip(path) else open
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
            names = next(csv.reader(file, delimiter=delimiter), [])
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error
    if not names:
        raise ValueError(f"{path}: is empty; its first line should name the columns")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{path}: columns named twice: {listing(repeated)}; rename or remove one of each")
    return names


def read_delimited(path: pathlib.Path, types: Mapping[str, pa.DataType]) -> pl.DataFrame:
    """The columns, all in their order, as these types; every row must have as many fields as the header."""
    reading = pa.csv.ReadOptions(use_threads=False, block_size=1 << 24)  # threads do not count rows
    parsing = pa.csv.ParseOptions(delimiter=_delimiter(path), newlines_in_values=True)
    converting = pa.csv.ConvertOptions(column_types=types, null_values=UNKNOWN, strings_can_be_null=True)
    try:
        with pa.input_stream(str(path), compression="gzip" if _is_gzip(path) else None) as file:
            table = pa.csv.read_csv(file, reading, parsing, converting)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(f"{path}: {_explanation(str(error), list(types))}") from error
    for name in types:
        _refuse_line_breaks(path, name, table[name])
    return pl.DataFrame(pl.from_arrow(table))


def _refuse_line_breaks(path: pathlib.Path, name: str, column: pa.ChunkedArray) -> None:
    if pa.types.is_floating(column.type):
        return
    found = column.filter(pc.match_substring_regex(column, "[\r\n]"))
    if len(found):
        start = found[0].as_py()[:40]
        raise ValueError(
            f"{path}: column {name!r} has a line break within {start!r}; a quote is probably not closed there"
        )


def _explanation(error: str, names: Sequence[str]) -> str:
    column = re.search(r"In CSV column #(\d+)", error)
    if column and "UTF8" not in error:
        name = names[int(column[1])]
        return f"column {name!r} is not all numbers ({error}); name it in metadata_columns or in drop"
    if column:
        return f"{error}; save the file as UTF-8"
    return f"{error}; was the file cut short? Write or fetch it again"
