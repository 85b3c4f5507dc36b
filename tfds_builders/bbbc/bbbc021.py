"""BBBC021: MCF-7 cells under 113 small molecules, 55 plates, four fields a well.

DMSO wells are the negative controls of their plates, the same six wells of each with 0.3 µM taxol the positive ones.

    index(folder)                                  # the table of fields, without images

    BBBC021_v1_image.csv        a row per field: files of DAPI, Tubulin, Actin, plate, well, Replicate, compound, µM
    BBBC021_v1_moa.csv          or moa.csv: compound, concentration, moa of those with a known mechanism
    BBBC021_v1_compound.csv     compound, smiles; may be missing, and is only looked at for compounds it lacks
    Week1/Week1_22123/*.tif     as the first says, in the source or in its folder `images`
"""

import csv
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from coos.data import plate_fields, plate_maps
from coos.data.plate_fields import TOLERANCE, Fields
from coos.data.sample_index import well_name
from coos.profiles.table import listing

STAINS = ("DAPI", "Tubulin", "Actin")
CHANNELS = ("DNA", "Tubulin", "Actin")
IMAGES, COMPOUNDS = "BBBC021_v1_image.csv", "BBBC021_v1_compound.csv"
MECHANISMS = ("BBBC021_v1_moa.csv", "moa.csv")
UNIT = "uM"
# On all 55 plates, beside wells D05 of three, which hold the same as one of the treatments.
POSITIVE = {("taxol", 0.3, well) for well in ("E02", "F02", "G02", "B11", "C11", "D11")}
PLATE, WELL, REPLICATE = "Image_Metadata_Plate_DAPI", "Image_Metadata_Well_DAPI", "Replicate"
COMPOUND, CONCENTRATION = "Image_Metadata_Compound", "Image_Metadata_Concentration"
FILES = tuple((f"Image_FileName_{stain}", f"Image_PathName_{stain}") for stain in STAINS)
SITE = re.compile(r"(?:^|.*_)([A-P]\d{2})_s(\d+)_w\d", re.IGNORECASE)

Mechanisms = dict[str, list[tuple[float, str]]]


def find(source: pathlib.Path, *, plates: Sequence[str] | None = None) -> Fields:
    """The fields of all plates, or of some, with their files, all of which must be there."""
    rows, paths = _rows(source, plates)
    root = plate_fields.folder_of(source, "images")
    images = [[root / path for path in files] for files in paths]
    missing = plate_fields.exists(path for files in images for path in files)
    if missing:
        raise ValueError(
            f"{source / IMAGES}: {len(missing)} images are not there, such as {listing(missing, 3)}; unpack them, or "
            "build the plates that are complete: --plates"
        )
    return plate_fields.make(rows, CHANNELS, images, where=str(source / IMAGES))


def index(folder: str | pathlib.Path) -> pl.DataFrame:
    """The table of all fields (columns: `plate_fields.COLUMNS`), in the order of the dataset; no image is looked at.

    Raises:
        ValueError: a file or column is missing, a number is none, or a mechanism belongs to no field.
    """
    source = pathlib.Path(folder)
    rows, _ = _rows(source, None)
    return plate_fields.make(rows, CHANNELS, None, where=str(source / IMAGES)).frame


def _rows(
    source: pathlib.Path, plates: Sequence[str] | None
) -> tuple[list[dict[str, Any]], list[tuple[str, ...]]]:
    """What is known of every field, and its files relative to the folder of images."""
    path = plate_fields.require_file(source, IMAGES)
    rows, paths = [], []
    columns = (PLATE, WELL, REPLICATE, COMPOUND, CONCENTRATION, *(name for pair in FILES for name in pair))
    for where, row in _read(path, columns):
        rows.append(_row(row, where))
        paths.append(tuple(f"{row[folder]}/{file}" for file, folder in ((row[f], p) for f, p in FILES)))
    _join(rows, source)
    _look_at_compounds(rows, source)
    if plates is None:
        return rows, paths
    unknown = sorted(set(plates) - {row["plate"] for row in rows})
    if unknown:
        raise ValueError(f"{path}: has no plate {unknown[0]!r}")
    kept = [number for number, row in enumerate(rows) if row["plate"] in plates]
    return [rows[number] for number in kept], [paths[number] for number in kept]


def _read(path: pathlib.Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV and where they stand; ValueError for a column that is missing or a field that is empty."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(
                f"{path}: column {missing[0]!r} missing; found {listing(list(reader.fieldnames or ()), 20)}"
            )
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            empty = [name for name in columns if not row[name]]
            if empty:
                raise ValueError(f"{where}: {empty[0]} is empty")
            yield where, row


def _row(row: dict[str, str], where: str) -> dict[str, Any]:
    compound, well = row[COMPOUND].strip(), well_name(row[WELL].strip())
    name = SITE.match(row[FILES[0][0]])
    if not name or name[1].upper() != well:
        raise ValueError(
            f"{where}: file {row[FILES[0][0]]} is not of a site of well {well}: expected {well}_s1_w1..."
        )
    if not row[REPLICATE].isdecimal():
        raise ValueError(f"{where}: {REPLICATE} is {row[REPLICATE]!r}; expected 1, 2, ...")
    concentration = plate_maps.parse(row[CONCENTRATION], where)
    positive = "positive" if (compound, concentration, well) in POSITIVE else None
    return {
        "plate": row[PLATE],
        "well": well,
        "site": str(int(name[2])),
        "compound": compound,
        "concentration": concentration,
        "concentration_unit": UNIT,
        "replicate": int(row[REPLICATE]),
        "control": "negative" if compound == plate_fields.VEHICLE else positive,
        "cell_line": "MCF7",
        "moa": None,
    }


def _join(rows: list[dict[str, Any]], source: pathlib.Path) -> None:
    """Write the mechanisms into the rows; concentrations are equal up to `TOLERANCE`.

    Raises:
        ValueError: mechanisms of compounds or concentrations that no field has, which are named.
    """
    path = plate_fields.require_file(source, *MECHANISMS)
    known = _mechanisms(path)
    used: set[tuple[str, float]] = set()
    for row in rows:
        for value, moa in known.get(row["compound"], ()):
            if same(value, row["concentration"]):
                row["moa"] = moa
                used.add((row["compound"], value))
    lonely = [
        (name, value) for name, pairs in known.items() for value, _ in pairs if (name, value) not in used
    ]
    if lonely:
        names = {row["compound"] for row in rows}
        some = [
            f"{name} at {value:g} {UNIT}" + ("" if name in names else " (no such compound)")
            for name, value in lonely
        ]
        raise ValueError(f"{path}: {len(lonely)} rows match no field of {IMAGES}: {listing(some)}")


def _mechanisms(path: pathlib.Path) -> Mechanisms:
    """(concentration, moa) of every compound but the vehicle, which has none."""
    known: Mechanisms = {}
    for where, row in _read(path, ("compound", "concentration", "moa")):
        compound, value = row["compound"].strip(), plate_maps.parse(row["concentration"].strip(), where)
        if compound == plate_fields.VEHICLE:
            continue
        pairs = known.setdefault(compound, [])
        if any(same(value, other) for other, _ in pairs):
            raise ValueError(f"{where}: {compound} at {value:g} {UNIT} occurs twice")
        pairs.append((value, row["moa"].strip()))
    return known


def same(one: float, other: float) -> bool:
    """Whether two concentrations are equal up to `TOLERANCE`."""
    return abs(one - other) <= TOLERANCE * max(one, other)


def _look_at_compounds(rows: list[dict[str, Any]], source: pathlib.Path) -> None:
    """ValueError if the table of compounds is there and lacks one that a field has."""
    path = plate_fields.file_of(source, COMPOUNDS)
    if path is None:
        return
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if "compound" not in (reader.fieldnames or ()):
            raise ValueError(f"{path}: column 'compound' missing")
        there = {(row["compound"] or "").strip() for row in reader}
    missing = sorted({row["compound"] for row in rows} - there - {plate_fields.VEHICLE, "UNKNOWN"})
    if missing:
        raise ValueError(f"{path}: lacks compounds of {IMAGES}: {listing(missing)}")
