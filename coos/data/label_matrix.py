"""Sparse bioactivity labels of compounds in assays: +1 active, -1 inactive, absent where nobody measured.

    <folder>/label-matrix.mtx           MatrixMarket "coordinate integer general": row column value, counted from 1
    <folder>/row-compound-index.csv     INDEX (from 0), INCHIKEY
    <folder>/column-assay-index.csv     ASSAY_ID, by position; an assay may take several columns
    <folder>/summary.json               shape, density and counts; optional when read

This is the layout in which the labels of Hofmarcher et al. (2019) were released: 10,574 compounds, 209 assays,
55,542 entries. Five of its assay IDs occur more than once, because one assay may be thresholded at several
activities: columns are told apart by position, never by ID.
"""

import csv
import dataclasses
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from coos import workdir

MATRIX, SUMMARY = "label-matrix.mtx", "summary.json"
COMPOUNDS, ASSAYS = "row-compound-index.csv", "column-assay-index.csv"
HEADER = "%%MatrixMarket matrix coordinate integer general"
INCHIKEY = re.compile(r"[A-Z]{14}-[A-Z]{10}-[A-Z]")


@dataclasses.dataclass(frozen=True, eq=False)
class LabelMatrix:
    """Labels of `compounds` (rows) in `assays` (columns), as E entries sorted by (row, column).

    `rows` and `columns` (E,) int32 count from 0; `values` (E,) int8 are +1 (active) or -1 (inactive).
    `compounds` are distinct InChIKeys; `assays` are IDs by position and may repeat. Use `from_entries` to make one.
    """

    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    compounds: tuple[str, ...]
    assays: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_compounds(self.compounds, "compound ", 0)
        _check_assays(self.assays, "assay ", 0)
        _check_entries(self.rows, self.columns, self.values, self.shape)

    @property
    def shape(self) -> tuple[int, int]:
        """(compounds, assays)."""
        return len(self.compounds), len(self.assays)

    @property
    def density(self) -> float:
        """Labelled fraction of all pairs of compound and assay; 0 for an empty matrix."""
        return len(self.values) / max(self.shape[0] * self.shape[1], 1)

    @property
    def task_names(self) -> tuple[str, ...]:
        """Assay IDs made unique: "688422", its second column "688422 (2)"."""
        seen: dict[str, int] = {}
        names = []
        for assay in self.assays:
            seen[assay] = seen.get(assay, 0) + 1
            names.append(assay if seen[assay] == 1 else f"{assay} ({seen[assay]})")
        return tuple(names)

    def entries(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """The labels of one compound: columns (n,) int32, ascending, and values (n,) int8."""
        if not 0 <= row < self.shape[0]:
            raise ValueError(f"row {row} of a label matrix of {self.shape[0]} compounds")
        start, stop = np.searchsorted(self.rows, [row, row + 1])
        return self.columns[start:stop], self.values[start:stop]

    def dense(self, rows: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """(n, tasks) int8 with 0 for unlabelled, of all compounds or of `rows` (n,), which may repeat."""
        chosen = np.arange(self.shape[0]) if rows is None else np.asarray(rows, np.int64).reshape(-1)
        outside = chosen[(chosen < 0) | (chosen >= self.shape[0])]
        if len(outside):
            raise ValueError(f"row {outside[0]} of a label matrix of {self.shape[0]} compounds")
        starts = np.searchsorted(self.rows, chosen)
        counts = np.searchsorted(self.rows, chosen, side="right") - starts
        targets = np.repeat(np.arange(len(chosen)), counts)
        # Position of every wanted entry: its row's start plus its place among that row's entries.
        places = np.arange(len(targets)) - np.repeat(np.cumsum(counts) - counts, counts)
        sources = np.repeat(starts, counts) + places
        result = np.zeros((len(chosen), self.shape[1]), np.int8)
        result[targets, self.columns[sources]] = self.values[sources]
        return result

    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Active and inactive compounds of every column: two (tasks,) int64 arrays."""
        tasks = self.shape[1]
        active, inactive = (np.bincount(self.columns[self.values == v], minlength=tasks) for v in (1, -1))
        return active, inactive


def from_entries(
    rows: Sequence[int] | np.ndarray,
    columns: Sequence[int] | np.ndarray,
    values: Sequence[int] | np.ndarray,
    *,
    compounds: Sequence[str],
    assays: Sequence[str],
) -> LabelMatrix:
    """A label matrix from entries in any order; ValueError if they contradict or leave the shape."""
    rows, columns, values = (np.asarray(array, np.int64).reshape(-1) for array in (rows, columns, values))
    if not len(rows) == len(columns) == len(values):
        raise ValueError(f"{len(rows)} rows, {len(columns)} columns and {len(values)} values of entries")
    _check_values(values)
    order = np.lexsort((columns, rows))
    return LabelMatrix(
        rows=rows[order].astype(np.int32),
        columns=columns[order].astype(np.int32),
        values=values[order].astype(np.int8),
        compounds=tuple(compounds),
        assays=tuple(str(assay) for assay in assays),
    )


def describe(matrix: LabelMatrix) -> dict[str, Any]:
    """Shape, density and counts, in all and of every column, as JSON can hold them."""
    active, inactive = matrix.counts()
    return {
        "compounds": matrix.shape[0],
        "assays": matrix.shape[1],
        "distinct_assays": len(set(matrix.assays)),
        "entries": len(matrix.values),
        "active": int(active.sum()),
        "inactive": int(inactive.sum()),
        "density": matrix.density,
        "unlabelled_compounds": matrix.shape[0] - len(np.unique(matrix.rows)),
        "columns": [
            {"position": position, "assay_id": assay, "active": int(ones), "inactive": int(others)}
            for position, (assay, ones, others) in enumerate(
                zip(matrix.assays, active, inactive, strict=True)
            )
        ],
    }


def read(folder: str | os.PathLike) -> LabelMatrix:
    """Read a label matrix folder and check it.

    Raises:
        ValueError: a file is missing; a header, line, value, index or InChIKey is wrong (the message has file and
            line); an entry or compound occurs twice; the index files do not fit the matrix.
    """
    folder = pathlib.Path(folder)
    compounds = _read_compounds(folder / COMPOUNDS)
    assays = _read_assays(folder / ASSAYS)
    shape, entries = _read_matrix(folder / MATRIX)
    for name, found, expected in ((COMPOUNDS, len(compounds), shape[0]), (ASSAYS, len(assays), shape[1])):
        if found != expected:
            raise ValueError(f"{folder / name}: {found} rows, but {MATRIX} beside it has {expected}")
    return from_entries(*entries.T, compounds=compounds, assays=assays)


def write(folder: str | os.PathLike, matrix: LabelMatrix, *, summary: dict[str, Any] | None = None) -> None:
    """Write a label matrix folder; `summary.json` has what `describe` says and then `summary`.

    Entries are written column by column, as in the published file. The matrix comes last, so that a folder whose
    writing was cut short has none and cannot be read.
    """
    folder = pathlib.Path(folder)
    (folder / MATRIX).unlink(missing_ok=True)
    index = ["INDEX,INCHIKEY", *(f"{row},{key}" for row, key in enumerate(matrix.compounds))]
    _write_lines(folder / COMPOUNDS, index)
    _write_lines(folder / ASSAYS, ["ASSAY_ID", *matrix.assays])
    workdir.write_json(folder / SUMMARY, {**describe(matrix), **(summary or {})})
    order = np.lexsort((matrix.rows, matrix.columns))
    entries = np.stack([matrix.rows + 1, matrix.columns + 1, matrix.values], axis=1)[order]
    head = [HEADER, "%", f"{matrix.shape[0]} {matrix.shape[1]} {len(entries)}"]
    _write_lines(
        folder / MATRIX, head + [f"{row} {column} {value}" for row, column, value in entries.tolist()]
    )


def _write_lines(path: pathlib.Path, lines: list[str]) -> None:
    workdir.write_atomically(path, lambda file: file.write("\n".join(lines) + "\n"))


def _check_compounds(compounds: Sequence[str], where: str, first: int) -> None:
    """InChIKeys, each once; errors count from `first`."""
    seen: dict[str, int] = {}
    for number, compound in enumerate(compounds, start=first):
        if not INCHIKEY.fullmatch(compound):
            raise ValueError(f"{where}{number}: {compound!r} is not an InChIKey")
        if seen.setdefault(compound, number) != number:
            raise ValueError(f"{where}{number}: {compound} occurs a second time, after {seen[compound]}")


def _check_assays(assays: Sequence[str], where: str, first: int) -> None:
    for number, assay in enumerate(assays, start=first):
        if not re.fullmatch(r"[^\s,\"]+", assay):
            raise ValueError(f"{where}{number}: {assay!r} is no ID: text without blanks, commas and quotes")


def _check_values(values: np.ndarray) -> None:
    wrong = np.flatnonzero(np.abs(values) != 1)
    if len(wrong):
        raise ValueError(
            f"entry {wrong[0]}: value {values[wrong[0]]}; labels are +1 (active) or -1 (inactive)"
        )


def _check_entries(rows: np.ndarray, columns: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> None:
    """Entries inside the shape, sorted and distinct, of the promised dtypes."""
    for name, array, dtype in (
        ("rows", rows, np.int32),
        ("columns", columns, np.int32),
        ("values", values, np.int8),
    ):
        if array.dtype != dtype or array.shape != (len(rows),):
            raise ValueError(
                f"{name} of a label matrix: {array.dtype} {array.shape}, not {np.dtype(dtype)} ({len(rows)},)"
            )
    _check_values(values)
    for name, array, length in (("row", rows, shape[0]), ("column", columns, shape[1])):
        outside = np.flatnonzero((array < 0) | (array >= length))
        if len(outside):
            raise ValueError(f"entry {outside[0]}: {name} {array[outside[0]]} of a matrix with {length}")
    keys = rows.astype(np.int64) * shape[1] + columns
    wrong = np.flatnonzero(np.diff(keys) <= 0)
    if len(wrong):
        first = wrong[0] + 1
        what = "occurs twice" if keys[first] == keys[wrong[0]] else "is out of order; use from_entries"
        raise ValueError(f"entry {first}: row {rows[first]}, column {columns[first]} {what}")


def _read_lines(path: pathlib.Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise ValueError(f"{path}: missing; a label matrix is {MATRIX}, {COMPOUNDS} and {ASSAYS}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file ({error})") from error


def _read_table(path: pathlib.Path, header: list[str]) -> list[list[str]]:
    """Fields of the rows of a CSV file with exactly this header; blank lines at its end are no rows."""
    lines = _read_lines(path)
    while lines and not lines[-1].strip():
        lines.pop()
    table = [[field.strip() for field in fields] for fields in csv.reader(lines)]
    if not table or table[0] != header:
        found = ",".join(table[0]) if table else "an empty file"
        raise ValueError(f"{path}, line 1: expected the header {','.join(header)}, found {found}")
    for line, fields in enumerate(table[1:], start=2):
        if len(fields) != len(header) or not all(fields):
            raise ValueError(f"{path}, line {line}: expected {','.join(header)}, found {','.join(fields)!r}")
    return table[1:]


def _read_compounds(path: pathlib.Path) -> list[str]:
    table = _read_table(path, ["INDEX", "INCHIKEY"])
    for row, (index, _) in enumerate(table):
        if index != str(row):
            raise ValueError(f"{path}, line {row + 2}: INDEX {index}, expected {row} (0, 1, 2, ...)")
    _check_compounds([key for _, key in table], f"{path}, line ", 2)
    return [key for _, key in table]


def _read_assays(path: pathlib.Path) -> list[str]:
    assays = [assay for (assay,) in _read_table(path, ["ASSAY_ID"])]
    _check_assays(assays, f"{path}, line ", 2)
    return assays


def _read_matrix(path: pathlib.Path) -> tuple[tuple[int, int], np.ndarray]:
    """The shape and the entries (E, 3) of a MatrixMarket file: row and column from 0, value."""
    lines = _read_lines(path)
    if not lines or lines[0].lower().split() != HEADER.lower().split():
        raise ValueError(f"{path}, line 1: expected {HEADER!r}, found {lines[0] if lines else 'nothing'!r}")
    numbered = [
        (number, _integers(path, number, line))
        for number, line in enumerate(lines[1:], start=2)
        if line.strip() and not line.startswith("%")
    ]
    if not numbered:
        raise ValueError(f"{path}: the line with rows, columns and entries is missing")
    num_rows, num_columns, num_entries = numbered[0][1]
    first: dict[tuple[int, int], int] = {}
    for number, (row, column, value) in numbered[1:]:
        if not (1 <= row <= num_rows and 1 <= column <= num_columns):
            raise ValueError(
                f"{path}, line {number}: row {row}, column {column} of {num_rows} x {num_columns} (from 1)"
            )
        if value not in (1, -1):
            raise ValueError(f"{path}, line {number}: value {value}; labels are 1 (active) or -1 (inactive)")
        if first.setdefault((row, column), number) != number:
            raise ValueError(
                f"{path}, line {number}: row {row}, column {column} is on line {first[row, column]} already"
            )
    if len(first) != num_entries:
        raise ValueError(
            f"{path}: {len(first)} entries, but its head says {num_entries}; it was cut short or edited"
        )
    entries = np.array([integers for _, integers in numbered[1:]], np.int64).reshape(-1, 3)
    return (num_rows, num_columns), entries - [1, 1, 0]


def _integers(path: pathlib.Path, number: int, line: str) -> tuple[int, int, int]:
    try:
        first, second, third = (int(field) for field in line.split())
    except ValueError:
        raise ValueError(f"{path}, line {number}: expected three integers, found {line!r}") from None
    return first, second, third
