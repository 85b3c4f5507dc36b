"""A label matrix from a ChEMBL release: which compounds are active in which assay, as far as anybody measured.

The protocol of Hofmarcher et al. (2019), section 2, with what it leaves open decided as follows:

1. Compounds are found by InChIKey. Rows of one InChIKey are one compound; all its molregnos count.
2. pChEMBL values of IC50 and EC50 from 4 to 10, both included. The values of one compound in one assay, of
   both types, become their median (out-of-range ones are left out before). It is active if it is >= a threshold
   and inactive if not; 5.5, 6.5 and 7.5 give three columns per assay.
3. Activity comments of any row, whatever its type: "active" is active; "inactive" and "not active" are inactive,
   stripped and in any case; no other comment is read. The majority of a compound's comments in one assay counts;
   a tie is a conflict and gives no label.
4. Columns with at least 10 active and 10 inactive compounds are kept: first those of the thresholds, from low to
   high, then those of comments, each by assay_id. An assay may thus have four columns.
5. Compounds with at least one label in these columns are kept, in the order in which they were given.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from coos import workdir
from coos.data import chembl_query, label_matrix
from coos.data.chembl_query import Measurements, Note
from coos.data.chemistry import Compounds

THRESHOLDS = (5.5, 6.5, 7.5)
MINIMUM = 10
COLUMNS, COMPOUNDS, NOTES = "columns.csv", "compounds.csv", "notes.csv"


class Labels(NamedTuple):
    """A label matrix and where it comes from: `columns` has a row per column, `compounds` one per given row."""

    matrix: label_matrix.LabelMatrix
    columns: pl.DataFrame
    compounds: pl.DataFrame
    notes: tuple[Note, ...]
    summary: dict[str, Any]


def extract(
    path: str | os.PathLike,
    compounds: Compounds,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    minimum: int = MINIMUM,
    comments: Mapping[str, int] = chembl_query.COMMENTS,
    drop_flagged: bool = False,
    progress: bool = False,
) -> Labels:
    """The label matrix of `compounds` from the ChEMBL release at `path`.

    Args:
        path: SQLite file of a release.
        compounds: from `coos.data.chemistry.identify`.
        thresholds: pChEMBL values from which on a compound is active; ascending.
        minimum: active and also inactive compounds that a column needs.
        comments: what activity comments say, in lower case: +1 active, -1 inactive.
        drop_flagged: leave out what ChEMBL marks as potential duplicate or of doubtful validity.
        progress: whether to show bars.

    Raises:
        ValueError: the release cannot be read, no compound is in it, or no column reaches the minimum.
    """
    if not compounds.inchikeys:
        raise ValueError(
            f"none of the {len(compounds.table)} compounds has an InChIKey or a SMILES that RDKit can read"
        )
    found = chembl_query.read_measurements(
        path, compounds.inchikeys, comments=comments, drop_flagged=drop_flagged, progress=progress
    )
    if not found.found:
        raise ValueError(
            f"{path}: has none of the {len(compounds.inchikeys)} compounds; are they of another kind?"
        )
    matrix, columns, notes = assemble(found, compounds.inchikeys, thresholds=thresholds, minimum=minimum)
    names = chembl_query.describe_assays(path, columns["assay_id"])
    columns = columns.with_columns(
        chembl_id=pl.Series([names[assay][0] for assay in columns["assay_id"]], dtype=pl.String),
        description=pl.Series([names[assay][1] for assay in columns["assay_id"]], dtype=pl.String),
    ).select("position", "assay_id", "chembl_id", "description", "source", "active", "inactive")
    protocol = {
        "thresholds": list(thresholds),
        "minimum": minimum,
        "types": list(chembl_query.TYPES),
        "pchembl_range": list(chembl_query.PCHEMBL_RANGE),
        "comments": dict(comments),
        "drop_flagged": drop_flagged,
    }
    table = _trace(compounds, found, matrix)
    every = (*found.notes, *notes)
    summary = {
        "release": chembl_query.release_name(path) or pathlib.Path(path).name,
        "protocol": protocol,
        "input": _count_compounds(compounds, found, matrix),
        "molecules_matched": found.num_molecules,
        "activities_matched": found.num_rows,
        "notes": _totals(every),
    }
    return Labels(matrix, columns, table, every, summary)


def assemble(
    found: Measurements,
    inchikeys: Sequence[str],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    minimum: int = MINIMUM,
) -> tuple[label_matrix.LabelMatrix, pl.DataFrame, tuple[Note, ...]]:
    """Measurements to matrix, its columns (position, assay_id, source, active, inactive) and notes on repeats.

    Raises:
        ValueError: thresholds do not ascend, minimum below 1, or no column has `minimum` actives and inactives.
    """
    if list(thresholds) != sorted(set(thresholds)) or minimum < 1:
        raise ValueError(f"thresholds {tuple(thresholds)} must ascend and minimum {minimum} be at least 1")
    medians, about_values = _medians(found.values, thresholds)
    majorities, about_comments = _majorities(found.comments)
    sources = [
        *((f"pchembl >= {threshold:g}", _labels(medians, threshold)) for threshold in thresholds),
        ("comment", _labels(majorities, 0.0)),
    ]
    labels = pl.concat(
        [
            table.with_columns(order=pl.lit(order), source=pl.lit(name))
            for order, (name, table) in enumerate(sources)
        ]
    )
    kept = _columns(labels, minimum)
    entries = labels.join(kept.select("position", "order", "assay_id"), on=["order", "assay_id"])
    rows = entries["compound"].unique().sort()
    matrix = label_matrix.from_entries(
        rows.search_sorted(entries["compound"]).to_numpy(),
        entries["position"].to_numpy(),
        entries["label"].to_numpy(),
        compounds=[inchikeys[compound] for compound in rows],
        assays=[str(assay) for assay in kept["assay_id"]],
    )
    sizes = [*_sizes("pchembl", medians), *_sizes("comment", majorities)]
    return matrix, kept.drop("order"), (*about_values, *about_comments, *sizes)


def _columns(labels: pl.DataFrame, minimum: int) -> pl.DataFrame:
    """The columns with enough labels: position, order, source, assay_id, active, inactive."""
    counted = (
        labels.group_by("order", "source", "assay_id")
        .agg(active=(pl.col("label") > 0).sum(), inactive=(pl.col("label") < 0).sum())
        .sort("order", "assay_id")
    )
    kept = counted.filter(pl.min_horizontal("active", "inactive") >= minimum).with_row_index("position")
    if not len(kept):
        raise ValueError(f"no column has {minimum} active and {minimum} inactive compounds; {_best(counted)}")
    return kept


def _best(counted: pl.DataFrame) -> str:
    if not len(counted):
        return "no compound has any label at all"
    best = counted.sort(pl.min_horizontal("active", "inactive"), descending=True).row(0, named=True)
    return "the best is assay {assay_id} ({source}) with {active} and {inactive}".format(**best)


def _sizes(name: str, pairs: pl.DataFrame) -> list[Note]:
    """The size of a matrix before its columns are filtered."""
    reason = f"before the filter: {name}"
    return [
        Note(reason, "compounds", pairs["compound"].n_unique()),
        Note(reason, "assays", pairs["assay_id"].n_unique()),
        Note(reason, "labels", len(pairs)),
    ]


def _medians(values: pl.DataFrame, thresholds: Sequence[float]) -> tuple[pl.DataFrame, list[Note]]:
    """The median per compound and assay; pairs of two decimals with a threshold as their mean give it exactly."""
    pairs = values.group_by("compound", "assay_id").agg(
        value=pl.col("value").median(),
        number=pl.len(),
        lowest=pl.col("value").min(),
        highest=pl.col("value").max(),
    )
    notes = [Note("repeats: median of several pChEMBL values", "", len(pairs.filter(pl.col("number") > 1)))]
    for threshold in thresholds:
        split = pairs.filter((pl.col("lowest") < threshold) & (pl.col("highest") >= threshold))
        notes.append(Note("repeats: pChEMBL values on both sides", f"{threshold:g}", len(split)))
    return pairs.select("compound", "assay_id", "value"), notes


def _majorities(comments: pl.DataFrame) -> tuple[pl.DataFrame, list[Note]]:
    """The sign of the sum of the comments of a compound in an assay; ties are left out and counted."""
    pairs = comments.group_by("compound", "assay_id").agg(
        value=pl.col("value").sum(), number=pl.len(), agreed=pl.col("value").n_unique() == 1
    )
    tied = pl.col("value") == 0
    notes = [
        Note(
            "repeats: comments that agree", "", len(pairs.filter((pl.col("number") > 1) & pl.col("agreed")))
        ),
        Note("repeats: majority of comments", "", len(pairs.filter(~pl.col("agreed") & ~tied))),
        Note("left out: as many active as inactive comments", "", len(pairs.filter(tied))),
    ]
    return pairs.filter(~tied).select("compound", "assay_id", "value"), notes


def _labels(pairs: pl.DataFrame, threshold: float) -> pl.DataFrame:
    label = pl.when(pl.col("value") >= threshold).then(1).otherwise(-1).cast(pl.Int8)
    return pairs.select("compound", "assay_id", label=label)


def _trace(compounds: Compounds, found: Measurements, matrix: label_matrix.LabelMatrix) -> pl.DataFrame:
    """What became of every given row: ROW, SMILES, INCHIKEY, ROW_NR_LABEL_MAT (null if it has no label), NOTE."""
    row_of = {key: row for row, key in enumerate(matrix.compounds)}
    rows = [row_of.get(key) for key in compounds.table["INCHIKEY"]]
    notes = []
    for compound, row, note in zip(compounds.table["compound"], rows, compounds.table["NOTE"], strict=True):
        if compound is not None and compound not in found.found:
            note = "; ".join(filter(None, (note, "not in the release")))
        elif compound is not None and row is None:
            note = "; ".join(filter(None, (note, "no label in the kept assays")))
        notes.append(note)
    table = compounds.table.with_columns(
        ROW_NR_LABEL_MAT=pl.Series(rows, dtype=pl.Int32), NOTE=pl.Series(notes, dtype=pl.String)
    )
    return table.select("ROW", "SMILES", "INCHIKEY", "ROW_NR_LABEL_MAT", "NOTE")


def _count_compounds(
    compounds: Compounds, found: Measurements, matrix: label_matrix.LabelMatrix
) -> dict[str, int]:
    without = compounds.table["compound"].null_count()
    return {
        "rows": len(compounds.table),
        "rows_without_inchikey": without,
        "rows_merged": len(compounds.table) - without - len(compounds.inchikeys),
        "rows_whose_smiles_disagree": int(compounds.table["NOTE"].str.starts_with("its SMILES").sum()),
        "compounds": len(compounds.inchikeys),
        "compounds_not_in_release": len(compounds.inchikeys) - len(found.found),
        "compounds_without_label": len(found.found) - matrix.shape[0],
    }


def _totals(notes: Sequence[Note]) -> dict[str, Any]:
    """{reason: rows}, over all details; what was there before the filter by name."""
    totals: dict[str, Any] = {}
    for reason, detail, rows in notes:
        key = f"{reason}, {detail}" if reason.startswith(("before", "repeats")) and detail else reason
        totals[key] = totals.get(key, 0) + rows
    return totals


def write(folder: str | os.PathLike, labels: Labels) -> None:
    """Write the label matrix folder, and beside it columns.csv, compounds.csv and notes.csv."""
    folder = pathlib.Path(folder)
    (folder / label_matrix.MATRIX).unlink(missing_ok=True)  # it comes last: a folder that has it is complete
    notes = pl.DataFrame(
        labels.notes, schema={"reason": pl.String, "detail": pl.String, "rows": pl.Int64}, orient="row"
    )
    for name, table in ((COLUMNS, labels.columns), (COMPOUNDS, labels.compounds), (NOTES, notes)):
        workdir.write_atomically(folder / name, table.write_csv, mode="wb")
    label_matrix.write(folder, labels.matrix, summary=labels.summary)
