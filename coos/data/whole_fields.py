"""Whole fields of view as examples to learn from: images, and a table of what is known of each.

    source, table = whole_fields.load("data/bbbc/bbbc013/1.0.0")
    labels, names = whole_fields.classes(table, (("neutral", "Metadata_control = 'negative'"), ...))

A field has no label of its own: a config says by queries, or by a column, what is to be told apart.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from coos.data import cell_parts
from coos.data import source as sources
from coos.data.source import Source
from coos.profiles.table import listing

SPLIT = "fields"
UNLABELLED = -1
ID, PLATE, WELL = "Metadata_id", "Metadata_Plate", "Metadata_Well"
CONTROL, TREATMENT = "Metadata_control", ("Metadata_compound", "Metadata_concentration")


def describe(directory: str | os.PathLike) -> dict[str, Any]:
    """The description of a built dataset of whole fields; ValueError when it holds something else."""
    dataset = sources.describe(directory)
    if "fields" not in dataset:
        raise ValueError(
            f"{directory}: no dataset of whole fields with a table of them; build one with "
            "`experiments/build.py bbbc`"
        )
    return dataset


def read_table(directory: str | os.PathLike) -> pl.DataFrame:
    """What is known of every field: plate, well, site, compound, concentration, control, mechanism (`Metadata_...`)."""
    path = pathlib.Path(directory, "fields.parquet")
    if not path.exists():
        raise ValueError(f"{path}: missing; build the dataset again with experiments/build.py")
    return pl.read_parquet(path)


def load(
    directory: str | os.PathLike, *, cache_dir: str | os.PathLike | None = None, store: str = "auto"
) -> tuple[Source, pl.DataFrame]:
    """All fields of a dataset without labels (all -1), and the table with a row for each, in the same order.

    `store`: see `coos.data.source.load`.
    """
    dataset = describe(directory)
    table = read_table(directory)
    _, images, columns = sources.open_split(directory, SPLIT, cache_dir=cache_dir, store=store)
    rows = np.argsort(columns["field"], kind="stable")  # position of each row of the table among the records
    if not np.array_equal(columns["field"][rows], np.arange(len(table))):
        raise ValueError(
            f"{directory}: {len(rows)} records for {len(table)} rows of fields.parquet; build it again"
        )
    labels = np.full(len(table), UNLABELLED, np.int32)
    ids = np.array(table[ID].to_list(), dtype=np.str_)
    return Source(images, labels, ids, rows, dataset), table


def classes(
    table: pl.DataFrame, rules: Sequence[tuple[str, str]] | str, *, where: str = ""
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class of every field (F,) int32, -1 for those of none, and the names of the classes.

    Args:
        table: as `read_table` gives it.
        rules: pairs of a class and the query that its fields match, in the order of the labels; or the column whose
            values are the classes, sorted by name.
        where: a query; fields that do not match it have no class.

    Raises:
        ValueError: a query that matches nothing, a field in two classes, a missing column, or fewer than two classes.
    """
    eligible = cell_parts.matching(table, where, "data.where", default=True)
    if isinstance(rules, str):
        return _by_column(table, rules, eligible)
    labels = np.full(len(table), UNLABELLED, np.int32)
    for k, (name, query) in enumerate(rules):
        found = cell_parts.matching(table, query, f"data.classes: {name}", default=True) & eligible
        twice = np.flatnonzero(found & (labels >= 0))
        if len(twice):
            other = rules[labels[twice[0]]][0]
            raise ValueError(
                f"data.classes: {table[ID][int(twice[0])]} is both {other!r} and {name!r}; make the queries exclusive"
            )
        labels[found] = k
    names = tuple(name for name, _ in rules)
    _require_all(labels, names, "data.classes")
    return labels, names


def _by_column(table: pl.DataFrame, column: str, eligible: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    if column not in table.columns:
        raise ValueError(f"data.target={column!r}: no such column; there are {listing(table.columns, 30)}")
    values = [
        value if known else None for value, known in zip(table[column].to_list(), eligible, strict=True)
    ]
    names = tuple(sorted({str(value) for value in values if value is not None}))
    number = {name: k for k, name in enumerate(names)}
    labels = np.array([UNLABELLED if v is None else number[str(v)] for v in values], np.int32)
    _require_all(labels, names, f"data.target={column!r}")
    return labels, names


def _require_all(labels: np.ndarray, names: Sequence[str], what: str) -> None:
    counts = {name: int((labels == k).sum()) for k, name in enumerate(names)}
    if len(names) < 2 or not all(counts.values()):
        raise ValueError(f"{what}: fields by class are {counts}; at least two classes with fields are needed")


def wells(table: pl.DataFrame) -> np.ndarray:
    """(F,) `<plate>-<well>`."""
    return np.array([f"{plate}-{well}" for plate, well in table.select(PLATE, WELL).iter_rows()], np.str_)


def drawn(
    table: pl.DataFrame, rows: np.ndarray, *, of: Sequence[str], unit: Sequence[str], number: int, seed: int
) -> np.ndarray:
    """Of every group of `rows` with equal values in the columns `of`, those of `number` units drawn at random.

    A unit is what has equal values in the columns `unit`: a field, or a well with all of its fields. Groups with no
    more units stay whole; 0 keeps all. What is drawn depends on values and seed, not on the order of the rows.
    """
    if not number:
        return rows
    generator = np.random.default_rng((seed, 7))
    groups, units = _names(table, of)[rows], _names(table, unit)[rows]
    kept = np.zeros(len(rows), bool)
    for group in np.unique(groups):
        here = groups == group
        kept |= here & np.isin(units, generator.permutation(np.unique(units[here]))[:number])
    return rows[kept]


def _names(table: pl.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """(F,) the values of several columns as one text."""
    return np.array(["\x1f".join(map(str, values)) for values in table.select(columns).iter_rows()], np.str_)


def control_statistics(table: pl.DataFrame, channels: Sequence[str]) -> Mapping[str, np.ndarray]:
    """Mean and standard deviation (F, C) float32 of each field's negative controls on its plate, by channel.

    ValueError naming a plate that has none.
    """
    found = {}
    for kind in ("mean", "std"):
        names = [f"Metadata_control_{kind}_{channel}" for channel in channels]
        missing = [name for name in names if name not in table.columns]
        if missing:
            raise ValueError(
                f"preprocess.intensity='controls': the dataset has no {missing[0]!r}; its builder measured no controls"
            )
        found[kind] = table.select(names).to_numpy().astype(np.float32)
    lacking = np.flatnonzero(~np.isfinite(found["mean"]).all(1) | ~(found["std"] > 0).all(1))
    if len(lacking):
        plate = table[PLATE][int(lacking[0])]
        raise ValueError(f"preprocess.intensity='controls': plate {plate} has no usable negative controls")
    return found
