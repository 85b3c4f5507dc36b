"""The index of a screen: which image (view) stands where, and which compound of a label matrix it shows.

    index = sample_index.read("sample-index.csv", matrix)

A view (field of view, site) is one image. Plates, wells and sites are text; wells are compared as "A01" ("a1" is the
same well), sites that are numbers without leading zeros.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from coos.data import chemistry
from coos.data.label_matrix import INCHIKEY, LabelMatrix
from coos.profiles import delimited
from coos.profiles.table import listing

PLACE = ("Metadata_Plate", "Metadata_Well", "Metadata_Site")
REQUIRED = ("SAMPLE_KEY", "PLATE_ID", "WELL_POSITION", "SITE")
COMPOUND = ("ROW_NR_LABEL_MAT", "INCHIKEY", "SMILES")

LeftOut = dict[str, dict[str, Any]]  # why -> {"number": how many, "such as": the first five}


@dataclasses.dataclass(frozen=True, eq=False)
class SampleIndex:
    """N views of compounds that have labels: `keys`, `plates`, `wells`, `sites`, `compounds` and `smiles` (N,) str.

    `rows` (N,) int32 are the rows of the label matrix; `wells` are "A01", `well_ids` "<plate>-A01". `smiles` are ""
    where the file has none. `left_out` counts the views that the file lists but that are not here, by reason.
    """

    keys: np.ndarray
    plates: np.ndarray
    wells: np.ndarray
    sites: np.ndarray
    compounds: np.ndarray
    smiles: np.ndarray
    rows: np.ndarray
    left_out: LeftOut

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def well_ids(self) -> np.ndarray:
        """(N,) names of wells that no two plates share."""
        return np.char.add(np.char.add(self.plates, "-"), self.wells)

    def subset(self, views: np.ndarray, *, reason: str) -> "SampleIndex":
        """The views chosen by a (N,) bool mask; `reason` says why the others are left out."""
        arrays = [field.name for field in dataclasses.fields(self) if field.name != "left_out"]
        chosen = {name: getattr(self, name)[views] for name in arrays}
        return SampleIndex(**chosen, left_out=self.left_out | left_out(reason, self.keys[~views]))

    def places(self) -> dict[tuple[str, str, str], int]:
        """The view at every (plate, well, site)."""
        names = zip(self.plates.tolist(), self.wells.tolist(), self.sites.tolist(), strict=True)
        return {place: view for view, place in enumerate(names)}


def well_name(text: str) -> str:
    """A well as "A01": capital letters, at least two digits; names of another form stay as they are."""
    match = re.fullmatch(r"([A-Za-z]{1,2})0*([0-9]{1,2})", text)
    return f"{match[1].upper()}{int(match[2]):02d}" if match else text


def site_name(text: str) -> str:
    """A site without leading zeros."""
    return str(int(text)) if text.isdecimal() else text


def left_out(reason: str, names: Sequence[str]) -> LeftOut:
    """A note that `names` are left out, or nothing if there are none."""
    return (
        {reason: {"number": len(names), "such as": [str(name) for name in names[:5]]}} if len(names) else {}
    )


def read(path: str | os.PathLike, matrix: LabelMatrix) -> SampleIndex:
    """Read a sample index: SAMPLE_KEY, PLATE_ID, WELL_POSITION, SITE, and what names the compound.

    The compound is ROW_NR_LABEL_MAT (row of the label matrix, from 0), INCHIKEY, or else SMILES, whose InChIKey
    RDKit computes; row and InChIKey must agree. Views whose compound has no label are left out and counted.

    Raises:
        ValueError: a missing column or value, a row outside the matrix or of another compound, a key or a place that
            occurs twice, a well with two compounds, or no view with labels; the line is named.
    """
    path = pathlib.Path(path)
    columns = _read_columns(path)
    refuse_repeated(path, columns["SAMPLE_KEY"], "SAMPLE_KEY")
    rows, reasons = _matrix_rows(path, columns, matrix)
    labelled = np.isin(rows, matrix.rows)
    reasons[(rows >= 0) & ~labelled] = "views of compounds without labels"
    kept = np.flatnonzero(labelled)
    if not len(kept):
        raise ValueError(
            f"{path}: no view of a compound with labels; {listing(sorted(set(reasons.tolist())))}"
        )
    keys = np.array(columns["SAMPLE_KEY"])
    plates = np.array(columns["PLATE_ID"])[kept]
    wells = np.array([well_name(text) for text in columns["WELL_POSITION"]])[kept]
    sites = np.array([site_name(text) for text in columns["SITE"]])[kept]
    index = SampleIndex(
        keys=keys[kept],
        plates=plates,
        wells=wells,
        sites=sites,
        compounds=np.array(matrix.compounds)[rows[kept]],
        smiles=np.array(columns["SMILES"])[kept],
        rows=rows[kept].astype(np.int32),
        left_out=_count_by_reason(reasons, keys),
    )
    _check_places(path, index, kept + 2)
    return index


def _count_by_reason(reasons: np.ndarray, keys: np.ndarray) -> LeftOut:
    notes: LeftOut = {}
    for reason in sorted(set(reasons.tolist()) - {""}):
        notes |= left_out(reason, keys[reasons == reason])
    return notes


def _read_columns(path: pathlib.Path) -> dict[str, list[str]]:
    """Columns as text, "" where nothing is known; those that name the compound are "" if they are missing."""
    frame = delimited.read_text_frame(path)
    missing = [name for name in REQUIRED if name not in frame.columns]
    if missing or not set(COMPOUND) & set(frame.columns):
        raise ValueError(
            f"{path}: column {listing(missing or list(COMPOUND))} missing; a sample index has {listing(REQUIRED)} and "
            f"one or more of {listing(COMPOUND)}; found {listing(frame.columns, 20)}"
        )
    if not frame.height:
        raise ValueError(f"{path}: no rows")
    columns = {
        name: [(text or "").strip() for text in frame[name].to_list()]
        if name in frame.columns
        else [""] * frame.height
        for name in (*REQUIRED, *COMPOUND)
    }
    for name in REQUIRED:
        if "" in columns[name]:
            raise ValueError(f"{path}, line {columns[name].index('') + 2}: {name} is empty")
    return columns


def refuse_repeated(
    path: pathlib.Path, values: Sequence[Any], what: str, lines: Sequence[int] | None = None
) -> None:
    """Raise ValueError if a value occurs twice, naming both lines (by default counted from 2, behind a header)."""
    first: dict[Any, int] = {}
    for line, value in zip(range(2, len(values) + 2) if lines is None else lines, values, strict=True):
        if first.setdefault(value, line) != line:
            raise ValueError(f"{path}, line {line}: {what} {value} is on line {first[value]} already")


def _check_places(path: pathlib.Path, index: SampleIndex, lines: np.ndarray) -> None:
    """Every place has one view and every well one compound."""
    places = list(zip(index.plates.tolist(), index.wells.tolist(), index.sites.tolist(), strict=True))
    refuse_repeated(path, places, "plate, well and site", lines.tolist())
    first: dict[str, int] = {}
    for view, well in enumerate(index.well_ids.tolist()):
        other = first.setdefault(well, view)
        if index.rows[other] != index.rows[view]:
            raise ValueError(
                f"{path}, line {lines[view]}: well {well} has {index.compounds[view]}, but on line {lines[other]} "
                f"{index.compounds[other]}; a well holds one compound"
            )


def _matrix_rows(
    path: pathlib.Path, columns: Mapping[str, list[str]], matrix: LabelMatrix
) -> tuple[np.ndarray, np.ndarray]:
    """(N,) row of the label matrix, -1 where there is none, and (N,) why not."""
    row_of = {key: row for row, key in enumerate(matrix.compounds)}
    named = list(zip(*(columns[name] for name in COMPOUND), strict=True))
    of_smiles = _keys_of_smiles([smiles for number, key, smiles in named if not number and not key])
    rows, reasons = np.full(len(named), -1), np.zeros(len(named), "U64")
    for i, (number, key, smiles) in enumerate(named):
        where = f"{path}, line {i + 2}"
        if key and not INCHIKEY.fullmatch(key):
            raise ValueError(f"{where}: INCHIKEY {key!r} is not an InChIKey")
        if number:
            rows[i] = _row(where, number, key, matrix)
            continue
        key = key or of_smiles.get(smiles) or ""
        rows[i] = row_of.get(key, -1)
        if not key:
            reasons[i] = "views whose SMILES has no InChIKey" if smiles else "views without a compound"
        elif rows[i] < 0:
            reasons[i] = "views of compounds that are not in the label matrix"
    return rows, reasons


def _keys_of_smiles(smiles: Sequence[str]) -> dict[str, str | None]:
    unique = sorted({text for text in smiles if text})
    return dict(zip(unique, chemistry.inchikeys(unique, progress=True), strict=True)) if unique else {}


def _row(where: str, number: str, key: str, matrix: LabelMatrix) -> int:
    """A row as text, "12" or "12.0", checked against the matrix and against the InChIKey, where there is one."""
    if not re.fullmatch(r"[0-9]+(\.0*)?", number):
        raise ValueError(f"{where}: ROW_NR_LABEL_MAT {number!r} is not a row number")
    row = int(number.split(".")[0])
    if row >= matrix.shape[0]:
        raise ValueError(
            f"{where}: ROW_NR_LABEL_MAT {row}; the label matrix has rows 0 to {matrix.shape[0] - 1}"
        )
    if key and matrix.compounds[row] != key:
        raise ValueError(
            f"{where}: ROW_NR_LABEL_MAT {row} is {matrix.compounds[row]} in the label matrix, but INCHIKEY says {key}"
        )
    return row
