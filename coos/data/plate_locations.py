"""Where the cells of a field of view are: `<Well>-<site>-Nuclei.csv`, as CellProfiler and DeepProfiler write them.

The columns Nuclei_Location_Center_X and Nuclei_Location_Center_Y are pixels, pixel i centred at i; further columns
are ignored. Centers are (y, x) here.
"""

import csv
import io
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from coos.profiles.table import listing

CENTER = ("Nuclei_Location_Center_Y", "Nuclei_Location_Center_X")
BLOCK = 1024  # files in memory at once
READERS = (
    16  # on a local disk threads gain nothing; where opening a file takes 3 ms, they read nine times faster
)


def read_centers(path: str | os.PathLike) -> np.ndarray:
    """(n, 2) float64 (y, x) of the cells of a file, in its order; (0, 2) if it has only a header.

    Raises:
        ValueError: the file cannot be read, lacks a column, or has a line with too few or too many values, or with a
            coordinate that is no finite number; file and line are named.
    """
    return _parse(path, _read(path))


def read_many(paths: Sequence[str]) -> Iterator[np.ndarray | ValueError]:
    """For every file, in order, what `read_centers` returns or the error that it raises."""
    with futures.ThreadPoolExecutor(READERS) as pool:
        for start in range(0, len(paths), BLOCK):
            block = paths[start : start + BLOCK]
            contents = list(pool.map(lambda path: _attempt(_read, path), block))
            for path, content in zip(block, contents, strict=True):
                yield content if isinstance(content, ValueError) else _attempt(_parse, path, content)


def _attempt(function: Callable, *arguments):
    try:
        return function(*arguments)
    except ValueError as error:
        return error


def _read(path: str | os.PathLike) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error})") from error


def _parse(path: str | os.PathLike, content: bytes) -> np.ndarray:
    """The centers in the bytes of a file."""
    try:
        text = content.decode("utf-8-sig")
        rows = [row for row in _csv(text) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: is no CSV file ({error}); write or fetch it again") from error
    names = rows[0] if rows else []
    missing = [name for name in CENTER if names.count(name) != 1]
    if missing:
        raise ValueError(
            f"{path}: needs one column {listing(missing)}; found {listing(names, 10) or 'nothing'}"
        )
    y, x = map(names.index, CENTER)
    try:
        centers = np.array([(float(row[y]), float(row[x])) for row in rows[1:]], np.float64).reshape(-1, 2)
    except (ValueError, IndexError):
        raise ValueError(f"{path}, {_fault(text, names)}") from None
    if not np.isfinite(centers).all() or set(map(len, rows)) != {len(names)}:
        raise ValueError(f"{path}, {_fault(text, names)}")
    return centers


def _csv(text: str) -> Any:
    return csv.reader(io.StringIO(text, newline=""), strict=True)


def _fault(text: str, names: list[str]) -> str:
    """The first line that is no cell, and why not."""
    lines = _csv(text)
    next(row for row in lines if row)
    for row in lines:
        if row and len(row) != len(names):
            return f"line {lines.line_num}: has {len(row)} values; expected {len(names)}; was the file cut short?"
        wrong = [name for name in CENTER if row and not _is_finite(row[names.index(name)])]
        if wrong:
            value = row[names.index(wrong[0])]
            return f"line {lines.line_num}: {wrong[0]} is {value!r}; cells need finite numbers"
    raise AssertionError("no line is wrong")


def _is_finite(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
