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
from collections.abc import Sequence

import numpy as np
import polars as pl

from coos.profiles import annotate as annotation
from coos.profiles import choose
from coos.profiles.table import Table, describe

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
    barcodes = annotation.Annotate(
        path=folder / "barcode_platemap.csv", on={"Metadata_Plate": "Assay_Plate_Barcode"}
    )
    table = barcodes.transform(_table(frame))
    table = _with_plate_maps(table, os.path.join(glob.escape(str(folder)), "platemap", "*.txt"))
    table = annotation.Annotate(
        path=folder / "repurposing_info_external_moa_map_resolved.tsv",
        on={SAMPLE: "broad_sample"},
        columns=("pert_iname", "moa", "target"),
        unmatched="keep",
    ).transform(table)
    return choose.NearestDose(column=DOSE, levels=dose_levels).transform(table).metadata


def _with_plate_maps(table: Table, pattern: str) -> Table:
    """Controls are named in the plate maps first, so that an index may name them as well."""
    wells = annotation.read_platemaps(pattern)
    try:
        maps = _table(wells)
        maps.require(SAMPLE, DOSE)
        _require_solvent(maps)
        maps = choose.Fill(column=SAMPLE, value=CONTROL).transform(maps)
        on = {"Metadata_Plate_Map_Name": "plate_map_name", "Metadata_Well": "well_position"}
        return annotation.join(table, maps.metadata, on=on)
    except ValueError as error:
        raise ValueError(f"{pattern}: {error}") from error


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
