"""What was on every well of plates: barcode, plate map and batch, compound, concentration and mechanism of action.

frame = plate_annotation.annotate(sites.frame, "release/metadata")

<metadata>/barcode_platemap.csv                                    Assay_Plate_Barcode, Plate_Map_Name, Batch_Number
<metadata>/platemap/*.txt                                          plate_map_name, well_position, broad_sample,
                                                                   mmoles_per_liter, solvent
<metadata>/repurposing_info_external_moa_map_resolved.tsv          broad_sample, pert_iname, moa, target
"""

import glob
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from coos.profiles import annotate as annotation
from coos.profiles import choose
from coos.profiles.table import Table, describe, listing

LEVELS = (0.04, 0.12, 0.37, 1.11, 3.33, 10.0, 20.0)  # µM: the nominal doses of lincs-cell-painting
CONTROL = "DMSO"
SAMPLE = "Metadata_broad_sample"
SOLVENT = "Metadata_solvent"
DOSE = "Metadata_mmoles_per_liter"  # in µM, whatever its name says


def annotate(
    frame: pl.DataFrame, metadata: str | os.PathLike, *, dose_levels: Sequence[float] = LEVELS
) -> pl.DataFrame:
    """`frame` with what is known about its wells; rows and their order stay.

    Added are the columns of the barcode table (Metadata_Plate_Map_Name, Metadata_Batch_Number, ...) and of the plate
    maps (Metadata_broad_sample, Metadata_mmoles_per_liter in µM, Metadata_solvent, ...), Metadata_pert_iname,
    Metadata_moa and Metadata_target, and Metadata_dose_level, the number of the nearest of `dose_levels` from 1.
    A well without a sample is a control: its Metadata_broad_sample is "DMSO". What is not known is null.

    Args:
        frame: N rows with Metadata_Plate and Metadata_Well; all columns have the prefix.
        metadata: the folder with the three files above.
        dose_levels: nominal doses in µM, rising.

    Raises:
        ValueError: a file or column is missing, a plate has no barcode, a well no row in its plate map, or `frame` says
            something else in one of the columns; those that do not match are named.
    """
    folder = pathlib.Path(metadata)
    table = _with_barcodes(_table(frame), folder / "barcode_platemap.csv")
    table = _with_plate_maps(table, os.path.join(glob.escape(str(folder)), "platemap", "*.txt"))
    table = annotation.Annotate(
        path=folder / "repurposing_info_external_moa_map_resolved.tsv",
        on={SAMPLE: "broad_sample"},
        columns=("pert_iname", "moa", "target"),
        unmatched="keep",
    ).transform(table)
    return choose.NearestDose(column=DOSE, levels=dose_levels).transform(table).metadata


def _with_barcodes(table: Table, path: pathlib.Path) -> Table:
    barcodes = _table(annotation.read_annotation(path, text=["Assay_Plate_Barcode"]))
    try:
        return _join(table, barcodes, on={"Metadata_Plate": "Metadata_Assay_Plate_Barcode"})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _with_plate_maps(table: Table, pattern: str) -> Table:
    """Controls are named in the plate maps first, so that an index may name them as well."""
    wells = annotation.read_platemaps(pattern)
    try:
        maps = _table(wells)
        maps.require(SAMPLE, DOSE)
        _require_solvent(maps)
        maps = choose.Fill(column=SAMPLE, value=CONTROL).transform(maps)
        on = {
            "Metadata_Plate_Map_Name": "Metadata_plate_map_name",
            "Metadata_Well": "Metadata_well_position",
        }
        return _join(table, maps, on=on)
    except ValueError as error:
        raise ValueError(f"{pattern}: {error}") from error


def _join(table: Table, known: Table, *, on: Mapping[str, str]) -> Table:
    """`table` with the columns of `known`; ValueError if rows have no partner there, with what can be done here."""
    table.require(*on, "Metadata_Plate")
    known.require(*on.values())
    left = table.metadata.with_columns(pl.col(name).cast(pl.String) for name in on)
    right = known.metadata.select(pl.col(old).cast(pl.String).alias(new) for new, old in on.items())
    lonely = left.join(right, on=list(on), how="anti", maintain_order="left")
    if lonely.height:
        keys = lonely.group_by(list(on), maintain_order=True).len()
        some = [
            f"{describe(dict(zip(on, key, strict=True)))} ({size} rows)"
            for *key, size in keys.head(5).iter_rows()
        ]
        plates = lonely["Metadata_Plate"].unique(maintain_order=True).to_list()
        raise ValueError(
            f"{lonely.height} of {len(table)} rows have no annotation: {keys.height} keys, such as {'; '.join(some)}; "
            f"complete the metadata file, or leave out plate {listing(plates)}: name the others with --plates"
        )
    return annotation.join(table, known.metadata, on=on)


def _require_solvent(maps: Table) -> None:
    """ValueError if a well has no sample and a solvent that is not the control."""
    if SOLVENT not in maps.metadata.columns:
        return
    other = pl.col(SAMPLE).is_null() & (pl.col(SOLVENT) != CONTROL)
    wrong = maps.metadata.filter(other).drop(SAMPLE, DOSE)
    if wrong.height:
        raise ValueError(
            f"{wrong.height} wells have no sample and another solvent than {CONTROL}, such as "
            f"{describe(wrong.row(0, named=True))}; name their samples"
        )


def _table(frame: pl.DataFrame) -> Table:
    return Table(frame, np.zeros((frame.height, 0), np.float32), ())
