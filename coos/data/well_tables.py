"""Tables beside the images of a screen: where the cells of every view are, and profiles of the wells.

    cells = well_tables.read_locations("cells.csv", index)
    profiles = well_tables.read_profiles("profiles.csv", index)

Both join with a `SampleIndex` by plate, well and site.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from coos.data.sample_index import (
    PLACE,
    LeftOut,
    SampleIndex,
    left_out,
    refuse_repeated,
    site_name,
    well_name,
)
from coos.profiles import delimited, files
from coos.profiles.table import listing

CENTER = ("Nuclei_Location_Center_Y", "Nuclei_Location_Center_X")


class Locations(NamedTuple):
    """Cells of N views: those of view v are `centers[starts[v] : starts[v + 1]]`, (row, column) in pixels, float64.

    `left_out` counts cells of places that no view has.
    """

    starts: np.ndarray
    centers: np.ndarray
    left_out: LeftOut

    def of(self, view: int) -> np.ndarray:
        """(cells, 2) centres of one view, in the order of the file."""
        return self.centers[self.starts[view] : self.starts[view + 1]]

    @property
    def counts(self) -> np.ndarray:
        """(N,) cells of every view."""
        return np.diff(self.starts)


def read_locations(path: str | os.PathLike, index: SampleIndex) -> Locations:
    """Read cell centres: plate, well, site and Nuclei_Location_Center_X and _Y, from CSV or parquet.

    Raises:
        ValueError: a missing column or value, a coordinate that is not finite, or no cell in any view.
    """
    path = pathlib.Path(path)
    frame = _read_frame(path, text=PLACE, numbers=CENTER).with_row_index("row")
    if not frame.height:
        raise ValueError(f"{path}: has no rows; without a table of cells, remove the file")
    wrong = frame.filter(pl.any_horizontal(~pl.col(name).is_finite() for name in CENTER))
    if wrong.height:
        values = {name: wrong[name][0] for name in CENTER}
        raise ValueError(f"{path}, row {wrong['row'][0] + 1}: {values}; cells need finite coordinates")
    found = index.places()
    places = frame.select(PLACE).unique(maintain_order=True)
    names = [(plate, well_name(well), site_name(site)) for plate, well, site in places.iter_rows()]
    views = [found.get(name, -1) for name in names]
    numbered = frame.join(places.with_columns(pl.Series("view", views, pl.Int64)), on=PLACE, how="left")
    known = numbered.filter(pl.col("view") >= 0).sort("view", "row")
    if not known.height:
        raise ValueError(
            f"{path}: none of its {frame.height} cells is in a view of the index; first place here "
            f"{names[:1]}, there {next(iter(found))}"
        )
    unknown = ["-".join(name) for name, view in zip(names, views, strict=True) if view < 0]
    note = left_out("places with cells but without a view", unknown)
    for entry in note.values():
        entry["cells"] = frame.height - known.height
    starts = np.searchsorted(known["view"].to_numpy(), np.arange(len(index) + 1))
    return Locations(starts, known.select(CENTER).to_numpy(), note)


def no_locations(index: SampleIndex) -> Locations:
    """What stands for the cells of a screen without a table of them."""
    return Locations(np.zeros(len(index) + 1, np.int64), np.zeros((0, 2)), {})


def _read_frame(path: pathlib.Path, *, text: Sequence[str], numbers: Sequence[str]) -> pl.DataFrame:
    """The columns `text` (none of them empty) and `numbers` (float64, NaN where unknown) of a CSV or parquet file."""
    wanted = [*text, *numbers]
    parquet = files.is_parquet(path)
    frame = files.read_parquet_frame(path) if parquet else None
    names = delimited.header(path) if frame is None else frame.columns
    missing = [name for name in wanted if name not in names]
    if missing:
        raise ValueError(f"{path}: column {listing(missing)} missing; found {listing(names, 20)}")
    if frame is None:
        types = dict.fromkeys(text, pa.string()) | dict.fromkeys(numbers, pa.float64())
        frame = delimited.read_delimited(path, {name: types.get(name, pa.binary()) for name in names})
    frame = frame.select(
        *(pl.col(name).cast(pl.String) for name in text),
        *(pl.col(name).cast(pl.Float64).fill_null(float("nan")) for name in numbers),
    )
    for name in text:
        if frame[name].null_count():
            raise ValueError(f"{path}, row {int(frame[name].is_null().arg_max() or 0) + 1}: {name} is empty")
    return frame


class Profiles(NamedTuple):
    """Features of W wells that the index has: `views` (W,) a view of each, `features` (W, F) float32 and their names.

    `dropped` are the features left out because some value was not finite; `left_out` counts wells.
    """

    views: np.ndarray
    features: np.ndarray
    names: tuple[str, ...]
    dropped: tuple[str, ...]
    left_out: LeftOut


def read_profiles(path: str | os.PathLike, index: SampleIndex, *, drop_nonfinite: bool = False) -> Profiles:
    """Read profiles of wells: Metadata_Plate, Metadata_Well, and features in the order of the file.

    Wells that only one of table and index has are left out and counted. Whether a feature is finite is judged on the
    wells of the index.

    Raises:
        ValueError: a missing column, a well that occurs twice, no well of the index, or features with NaN or infinity,
            unless `drop_nonfinite`: then those features are left out.
    """
    table = files.read(path)
    table.require(*PLACE[:2])
    plates, wells = (table.column(name).cast(pl.String).to_list() for name in PLACE[:2])
    if None in plates or None in wells:
        raise ValueError(f"{path}: a row has no {PLACE[0]} or no {PLACE[1]}")
    names = [f"{plate}-{well_name(well)}" for plate, well in zip(plates, wells, strict=True)]
    refuse_repeated(pathlib.Path(path), names, "well")
    row_of = {name: row for row, name in enumerate(names)}
    ids, first = np.unique(index.well_ids, return_index=True)
    has = np.array([name in row_of for name in ids])
    if not has.any():
        raise ValueError(
            f"{path}: has none of the wells of the index; first here {names[:1]}, there {ids[0]}"
        )
    features = table.features[[row_of[name] for name in ids[has]]]
    finite = np.isfinite(features).all(0)
    bad = [name for name, good in zip(table.feature_names, finite, strict=True) if not good]
    if bad and not drop_nonfinite:
        raise ValueError(
            f"{path}: {len(bad)} features have values that are not finite: {listing(bad)}; correct them, or leave "
            "these features out with drop_nonfinite_features"
        )
    if not finite.any():
        raise ValueError(f"{path}: no feature is finite in all wells")
    note = left_out("wells without a profile", ids[~has])
    note |= left_out("profiles of wells that the index does not have", sorted(set(names) - set(ids.tolist())))
    kept = tuple(name for name, good in zip(table.feature_names, finite, strict=True) if good)
    return Profiles(first[has], np.ascontiguousarray(features[:, finite]), kept, tuple(bad), note)
