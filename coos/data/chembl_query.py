"""Measurements of given compounds from a ChEMBL release in SQLite, streamed: only what matches stays in memory.

The release is opened read-only. Compounds are found in compound_structures by InChIKey, their measurements in
activities by molregno; a column without index is found by reading its table once.
"""

import array
import collections
import contextlib
import os
import pathlib
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from tqdm import tqdm

TABLES = {
    "compound_structures": ("molregno", "standard_inchi_key"),
    "activities": (
        "activity_id",
        "assay_id",
        "molregno",
        "standard_type",
        "standard_units",
        "pchembl_value",
        "activity_comment",
        "data_validity_comment",
        "potential_duplicate",
    ),
    "assays": ("assay_id", "chembl_id", "description"),
}
TYPES = ("IC50", "EC50")
PCHEMBL_RANGE = (4.0, 10.0)  # both ends count
COMMENTS = {"active": 1, "inactive": -1, "not active": -1}
VALIDATED = "Manually validated"  # the one data_validity_comment that speaks for a value
PIECES = 500  # in which a table is read
FETCH = 10_000  # rows held at a time


class Note(NamedTuple):
    """How many rows `reason` is true of, with a `detail` such as the unit or the comment."""

    reason: str
    detail: str
    rows: int


class Measurements(NamedTuple):
    """What a release says about compounds, which are numbered in the order they were asked for.

    `values`: columns compound (i32), assay_id (i64), value (f64): pChEMBL within range, repeats included;
    `comments`: the same columns, value +1 or -1; `found`: the compounds that the release knows, by
    `num_molecules` molregnos; `num_rows`: their activities. `notes` account for every one of these rows: it is
    either under "left out: flagged", or once under a reason "pchembl: ..." and once under "comment: ...".
    """

    values: pl.DataFrame
    comments: pl.DataFrame
    found: frozenset[int]
    num_molecules: int
    num_rows: int
    notes: tuple[Note, ...]


def read_measurements(
    path: str | os.PathLike,
    inchikeys: Sequence[str],
    *,
    types: Sequence[str] = TYPES,
    comments: Mapping[str, int] = COMMENTS,
    drop_flagged: bool = False,
    progress: bool = False,
) -> Measurements:
    """Read everything the release at `path` has measured on `inchikeys`, which must be distinct.

    Args:
        path: the SQLite file of a release, unpacked.
        inchikeys: standard InChIKeys.
        types: values of standard_type whose pChEMBL counts.
        comments: what an activity_comment, stripped and in lower case, says: +1 active, -1 inactive.
        drop_flagged: leave out rows that ChEMBL marks as potential duplicate or of doubtful validity.
        progress: whether to show bars.

    Raises:
        ValueError: no SQLite file, tables or columns missing, repeated InChIKeys, a pChEMBL that is no number.
    """
    if len(set(inchikeys)) != len(inchikeys):
        raise ValueError(
            f"{len(inchikeys)} InChIKeys, {len(set(inchikeys))} of them distinct; merge them first"
        )
    sorter = _Sorter(types, comments, drop_flagged)
    with _release(path) as connection:
        molecules = _match_molecules(connection, inchikeys, progress)
        columns = f"compound, {', '.join(name for name in TABLES['activities'] if name != 'molregno')}"
        for row in _joined(connection, columns, "activities", "matched", "molregno", progress):
            sorter.add(row)
    return Measurements(
        values=_frame(sorter.values),
        comments=_frame(sorter.comments),
        found=frozenset(molecules.values()),
        num_molecules=len(molecules),
        num_rows=sorter.num_rows,
        notes=tuple(Note(*key, rows) for key, rows in sorted(sorter.notes.items())),
    )


def describe_assays(path: str | os.PathLike, assay_ids: Iterable[int]) -> dict[int, tuple[str, str]]:
    """{assay_id: (chembl_id, description)} of the assays; ValueError if the release lacks one."""
    wanted = sorted({int(assay) for assay in assay_ids})
    with _release(path) as connection:
        connection.execute("CREATE TEMP TABLE kept (assay_id BIGINT UNIQUE)")
        connection.executemany("INSERT INTO kept VALUES (?)", ((assay,) for assay in wanted))
        rows = _joined(connection, "assay_id, chembl_id, description", "assays", "kept", "assay_id", False)
        found = {assay: (name or "", description or "") for assay, name, description in rows}
    missing = [assay for assay in wanted if assay not in found]
    if missing:
        raise ValueError(f"{path}: activities refer to assay {missing[0]}, which is not in the table assays")
    return found


def release_name(path: str | os.PathLike) -> str:
    """What the release calls itself in its table version; "" where there is none."""
    with _release(path) as connection:
        if "name" not in _columns(connection, "version"):
            return ""
        return ", ".join(
            str(name) for (name,) in connection.execute("SELECT name FROM version ORDER BY name")
        )


class _Sorter:
    """Sorts rows of activities into values, comments and notes."""

    def __init__(self, types: Sequence[str], comments: Mapping[str, int], drop_flagged: bool) -> None:
        self.types, self.readings, self.drop_flagged = frozenset(types), comments, drop_flagged
        # Arrays of machine numbers: a tenth of the memory of tuples.
        self.values, self.comments = [
            (array.array("i"), array.array("q"), array.array("d")) for _ in range(2)
        ]
        self.notes: collections.Counter[tuple[str, str]] = collections.Counter()
        self.num_rows = 0

    def add(self, row: tuple[Any, ...]) -> None:
        """Take one row of activities: its compound, then the columns of `TABLES` but for molregno."""
        compound, activity, assay, kind, units, pchembl, comment, validity, duplicate = row
        self.num_rows += 1
        flags = ["potential duplicate"] if duplicate else []
        flags += [validity] if validity and validity != VALIDATED else []
        if flags:
            reason = "left out: flagged" if self.drop_flagged else "kept although flagged"
            self.notes[reason, "; ".join(flags)] += 1
            if self.drop_flagged:
                return
        self._add_value(
            compound, activity, assay, f"{kind or 'no type'} / {units or 'no unit'}", kind, pchembl
        )
        self._add_comment(compound, assay, str(comment or "").strip().lower())

    def _add_value(
        self, compound: int, activity: int, assay: int, detail: str, kind: str | None, pchembl: Any
    ) -> None:
        if kind not in self.types:
            self.notes[f"pchembl: other type, {'no value' if pchembl is None else 'with value'}", detail] += 1
        elif pchembl is None:
            self.notes["pchembl: no value", detail] += 1
        else:
            value = _number(pchembl, activity)
            if PCHEMBL_RANGE[0] <= value <= PCHEMBL_RANGE[1]:
                self._append(self.values, compound, assay, value)
                self.notes["pchembl: used", detail] += 1
            else:
                self.notes["pchembl: outside {:g} to {:g}".format(*PCHEMBL_RANGE), detail] += 1

    def _add_comment(self, compound: int, assay: int, comment: str) -> None:
        reading = self.readings.get(comment)
        if reading is None:
            self.notes["comment: other" if comment else "comment: none", comment] += 1
        else:
            self._append(self.comments, compound, assay, reading)
            self.notes[f"comment: used as {'active' if reading > 0 else 'inactive'}", comment] += 1

    @staticmethod
    def _append(arrays: tuple[array.array, ...], *row: float) -> None:
        for values, value in zip(arrays, row, strict=True):
            values.append(value)


def _number(pchembl: Any, activity: int) -> float:
    try:
        return float(pchembl)
    except ValueError:
        raise ValueError(f"activity {activity}: pchembl_value {pchembl!r} is not a number") from None


def _frame(arrays: tuple[array.array, ...]) -> pl.DataFrame:
    names, dtypes = ("compound", "assay_id", "value"), (np.int32, np.int64, np.float64)
    columns = zip(names, arrays, dtypes, strict=True)
    return pl.DataFrame({name: np.array(values, dtype) for name, values, dtype in columns})


@contextlib.contextmanager
def _release(path: str | os.PathLike) -> Iterator[sqlite3.Connection]:
    """The opened release; whatever SQLite cannot read in it becomes a ValueError."""
    path = pathlib.Path(path)
    _check_file(path)
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        ) as connection:
            connection.execute("PRAGMA temp_store = MEMORY")
            _check_schema(connection, path)
            yield connection
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path}: SQLite cannot read it ({error}); is the file complete?") from error


def _check_file(path: pathlib.Path) -> None:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected the SQLite file of a ChEMBL release, chembl_NN.db")
    with open(path, "rb") as file:
        head = file.read(16)
    if head != b"SQLite format 3\0":
        what = "an archive: unpack it (tar -xzf)" if head.startswith(b"\x1f\x8b") else "not a SQLite file"
        raise ValueError(f"{path}: {what if head else 'empty'}; expected the SQLite file of a ChEMBL release")


def _check_schema(connection: sqlite3.Connection, path: pathlib.Path) -> None:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name"
    tables = [name for (name,) in connection.execute(query)]
    missing = [name for name in TABLES if name not in tables]
    if missing:
        raise ValueError(f"{path}: tables missing: {', '.join(missing)}; found {', '.join(tables) or 'none'}")
    for table, needed in TABLES.items():
        found = _columns(connection, table)
        absent = [name for name in needed if name not in found]
        if absent:
            raise ValueError(
                f"{path}, table {table}: columns missing: {', '.join(absent)}; found {', '.join(found)}"
            )


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def _match_molecules(
    connection: sqlite3.Connection, inchikeys: Sequence[str], progress: bool
) -> dict[int, int]:
    """{molregno: compound} of the InChIKeys, which may have several molecules; also as TEMP table matched."""
    connection.execute("CREATE TEMP TABLE wanted (standard_inchi_key TEXT UNIQUE, compound INTEGER)")
    rows = ((key, compound) for compound, key in enumerate(inchikeys))
    connection.executemany("INSERT INTO wanted VALUES (?, ?)", rows)
    key = "standard_inchi_key"
    found = dict(_joined(connection, "molregno, compound", "compound_structures", "wanted", key, progress))
    connection.execute("CREATE TEMP TABLE matched (molregno BIGINT UNIQUE, compound INTEGER)")
    connection.executemany("INSERT INTO matched VALUES (?, ?)", found.items())
    return found


def _joined(
    connection: sqlite3.Connection, columns: str, table: str, wanted: str, key: str, progress: bool
) -> Iterator[tuple[Any, ...]]:
    """Rows of `table` whose `key` is in the TEMP table `wanted`, one after the other.

    With an index on `key` the wanted rows are looked up, without one the table is read through. CROSS JOIN keeps
    SQLite from choosing otherwise; the outer table is taken in pieces of its rowids, which is what the bar counts.
    """
    outer, inner = (wanted, table) if _has_index(connection, table, key) else (table, wanted)
    query = (
        f"SELECT {columns} FROM {outer} CROSS JOIN {inner} USING ({key}) WHERE {outer}.rowid BETWEEN ? AND ?"
    )
    first, last = (
        connection.execute(f"SELECT {end}(rowid) FROM {outer}").fetchone()[0] for end in ("MIN", "MAX")
    )
    if first is None:
        return
    step = (last - first) // PIECES + 1
    pieces = range(first, last + 1, step)
    for start in tqdm(pieces, desc=f"reading {table}", disable=None if progress else True):
        cursor = connection.execute(query, (start, start + step - 1))
        while rows := cursor.fetchmany(FETCH):
            yield from rows


def _has_index(connection: sqlite3.Connection, table: str, key: str) -> bool:
    """Whether an index of the whole table begins with the column `key`."""
    for _, name, _, _, partial in connection.execute(f"PRAGMA index_list({table})").fetchall():
        first = connection.execute(f"PRAGMA index_info({name})").fetchone()
        if first[2] == key and not partial:
            return True
    return False
