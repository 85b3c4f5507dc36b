"""Whole fields of view: which files are the channels of each, and what is known of its well.

    files = pair([("A01", "GFP", path), ("A01", "DNA", other)], ("GFP", "DNA"))       # {"A01": (path, other)}
    fields = make(rows, ("GFP", "DNA"))                                                # a checked, sorted table

The table has every column of `COLUMNS`; what a set does not tell is null.
"""

import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from coos import concentrations
from coos.data import plane_files, plate_maps
from coos.profiles.table import listing

CONTROLS = ("negative", "positive")
VEHICLE = "DMSO"
TYPES = {
    "Plate": pl.String,
    "Well": pl.String,
    "Row": pl.String,
    "Column": pl.Int64,
    "Site": pl.String,
    "compound": pl.String,
    "concentration": pl.Float64,
    "concentration_unit": pl.String,
    "concentration_molar": pl.Float64,
    "dose_step": pl.Int64,
    "replicate": pl.Int64,
    "control": pl.String,
    "cell_line": pl.String,
    "moa": pl.String,
    "class": pl.String,
    "id": pl.String,
}
COLUMNS = tuple(f"Metadata_{name}" for name in TYPES)
TOLERANCE = 1e-6  # relative: nearer concentrations are one


@dataclasses.dataclass(frozen=True, eq=False)
class Fields:
    """S fields: `frame` (S rows, `COLUMNS`), the names of `channels` (C,) and a path per field and channel."""

    frame: pl.DataFrame
    channels: tuple[str, ...]
    images: tuple[tuple[pathlib.Path, ...], ...]

    def __len__(self) -> int:
        return len(self.images)

    def read(
        self, field: int, *, shape: Sequence[int] | None = None, dtype: np.dtype | None = None
    ) -> np.ndarray:
        """The image (H, W, C) of a field; ValueError if it cannot be read, or is not of that `shape` and `dtype`."""
        name = self.frame["Metadata_id"][field]
        try:
            image = plane_files.read_planes(self.images[field])
        except ValueError as error:
            raise ValueError(f"field {name}: {error}") from error
        if shape is not None and (image.shape != tuple(shape) or image.dtype != dtype):
            raise ValueError(
                f"field {name}: {self.images[field][0]}: is {image.dtype} {image.shape}; the first field of the set "
                f"is {dtype} {tuple(shape)}, and all must be like it"
            )
        return image


def folder_of(source: pathlib.Path, *names: str) -> pathlib.Path:
    """The folder of images: the first of `names` (in any case) that `source` has, else `source` itself."""
    there = {path.name.lower(): path for path in source.iterdir() if path.is_dir()}
    return next((there[name.lower()] for name in names if name.lower() in there), source)


def file_of(source: pathlib.Path, *names: str) -> pathlib.Path | None:
    """The first of the files `names` (in any case) that `source` has, or None."""
    there = {path.name.lower(): path for path in source.iterdir() if path.is_file()}
    return next((there[name.lower()] for name in names if name.lower() in there), None)


def require_file(source: pathlib.Path, *names: str) -> pathlib.Path:
    """The file that `file_of` finds; ValueError if there is none."""
    path = file_of(source, *names)
    if path is None:
        raise ValueError(f"{source}: no {' or '.join(names)}")
    return path


def matches(folder: pathlib.Path, pattern: str, *, expected: str) -> list[tuple[re.Match[str], pathlib.Path]]:
    """The images of a folder, by name, with the match of each with `pattern`, whatever its case.

    Raises:
        ValueError: an image of another name, or no image; `expected` says how names look.
    """
    found = []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in plane_files.SUFFIXES or path.name.startswith("."):
            continue
        match = re.fullmatch(pattern, path.stem, re.IGNORECASE)
        if not match:
            raise ValueError(f"{path}: name does not look like {expected}; remove the file, or rename it")
        found.append((match, path))
    if not found:
        raise ValueError(f"{folder}: no images; expected {expected}")
    return found


def pair(
    files: Iterable[tuple[Hashable, str, pathlib.Path]], channels: Sequence[str]
) -> dict[Any, tuple[pathlib.Path, ...]]:
    """Group (field, channel, path) by field; the paths of each are in the order of `channels`.

    Raises:
        ValueError: two files of one field and channel, or a field that lacks a channel, with the files.
    """
    found: dict[Hashable, dict[str, pathlib.Path]] = {}
    for key, channel, path in files:
        other = found.setdefault(key, {}).setdefault(channel, path)
        if other != path:
            raise ValueError(f"{path}: same field and channel {channel} as {other}; keep one of the two")
    for key, paths in found.items():
        missing = [channel for channel in channels if channel not in paths]
        if missing:
            have = next(iter(paths.values()))
            raise ValueError(
                f"{have}: its partner, channel {missing[0]} of field {_written(key)}, is missing"
            )
    return {key: tuple(paths[channel] for channel in channels) for key, paths in found.items()}


def _written(key: Hashable) -> str:
    return "-".join(map(str, key)) if isinstance(key, tuple) else str(key)


def numbered_wells(
    folder: pathlib.Path, pattern: str, channels: Sequence[str], *, expected: str
) -> dict[str, tuple[pathlib.Path, ...]]:
    """The files of every well, whose names give channel (from 1), number of the well row by row, row and column.

    Raises:
        ValueError: number and row and column disagree, or as `matches` and `pair`.
    """
    files = []
    for match, path in matches(folder, pattern, expected=expected):
        well = f"{match['row'].upper()}{match['column']}"
        if plate_maps.well_name(int(match["number"]) - 1) != well:
            number = plate_maps.well_number(well) + 1
            raise ValueError(f"{path}: well {well} is number {number} of its plate, not {match['number']}")
        files.append((well, channels[int(match["channel"]) - 1], path))
    return pair(files, channels)


def require_same(mapped: Iterable[str], imaged: Iterable[str], *, source: str, folder: str) -> None:
    """ValueError unless all wells of a plate map have images and all images a well there; it names those without."""
    wells, pictures = set(mapped), set(imaged)
    if wells - pictures:
        raise ValueError(
            f"{source}: wells without images in {folder}: {listing(sorted(wells - pictures))}; complete the images"
        )
    if pictures - wells:
        raise ValueError(
            f"{folder}: images of wells that {source} does not have: {listing(sorted(pictures - wells))}"
        )


def make(
    rows: Sequence[Mapping[str, Any]],
    channels: Sequence[str],
    images: Sequence[Sequence[pathlib.Path]] | None,
    *,
    where: str,
) -> Fields:
    """The table of fields, sorted by plate, well, site, class and id, with their files.

    Args:
        rows: what is known of each field, by the names in `TYPES` in lower case; what is missing or None is unknown.
            Row and column are those of the well; the concentration is converted to mol/L if it has a unit; the step, if
            not given, is the rank among the concentrations of the compound in wells that are no controls, 0 of negative
            controls; the id is plate-well-site.
        channels: names of the C channels.
        images: C paths of each row; None: the table alone is wanted.
        where: what messages begin with.

    Raises:
        ValueError: no rows, two of one id, an unknown unit or kind of control, or a negative concentration.
    """
    if not rows:
        raise ValueError(f"{where}: no fields of view")
    frame = _with_dose_steps(_with_molar(_table(rows), where))
    keys = ["Plate", "Well", "_number", "Site", "class", "id"]
    number = pl.col("Site").str.extract(r"^(\d+)$").cast(pl.Int64)
    order = frame.with_columns(number.alias("_number")).with_row_index("_place").sort(keys)["_place"]
    frame = frame[order].select(pl.col(name).alias(f"Metadata_{name}") for name in TYPES)
    _check(frame, where)
    paths = [] if images is None else [tuple(images[place]) for place in order]
    return Fields(frame, tuple(channels), tuple(paths))


def _table(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    frame = pl.DataFrame(
        {name: pl.Series([row.get(name.lower()) for row in rows], dtype=TYPES[name]) for name in TYPES}
    )
    well = pl.col("Well")
    return frame.with_columns(
        pl.coalesce("Row", well.str.extract(r"^([A-Z]+)\d+$")),
        pl.coalesce("Column", well.str.extract(r"^[A-Z]+(\d+)$").cast(pl.Int64)),
        pl.coalesce("id", pl.concat_str("Plate", "Well", "Site", separator="-")),
    )


def _with_molar(frame: pl.DataFrame, where: str) -> pl.DataFrame:
    """Concentrations in mol/L; of numbers without a unit it is unknown."""
    known = (frame["concentration"].is_not_null() & frame["concentration_unit"].is_not_null()).to_numpy()
    values, units = frame["concentration"].to_numpy(), frame["concentration_unit"].to_numpy()
    molar = np.full(frame.height, np.nan)
    for unit in sorted(set(units[known])):
        rows = known & (units == unit)
        molar[rows] = concentrations.to_molar(values[rows], unit, where=where)
    return frame.with_columns(pl.Series("concentration_molar", molar).fill_nan(None))


def _with_dose_steps(frame: pl.DataFrame) -> pl.DataFrame:
    """Ranks of concentrations, where no step is given."""
    names, controls, steps = (frame[name].to_list() for name in ("compound", "control", "dose_step"))
    values = frame.select(pl.coalesce("concentration_molar", "concentration")).to_series().to_list()
    doses: dict[str, set[float]] = collections.defaultdict(set)
    for name, control, value in zip(names, controls, values, strict=True):
        if value and name is not None and control is None:
            doses[name].add(value)
    series = {name: distinct(found) for name, found in doses.items()}
    for row, (name, control, value) in enumerate(zip(names, controls, values, strict=True)):
        if steps[row] is None and (control == "negative" or value == 0):
            steps[row] = 0
        elif steps[row] is None and value is not None and name in series:
            steps[row] = rank(series[name], value)
    return frame.with_columns(pl.Series("dose_step", steps, pl.Int64))


def rank(series: np.ndarray, value: float) -> int | None:
    """The place of `value`, from 1, in a rising series; None if it is not in it."""
    place = int(np.searchsorted(series, value * (1 - TOLERANCE)))
    return place + 1 if place < len(series) and series[place] <= value * (1 + TOLERANCE) else None


def distinct(values: Iterable[float]) -> np.ndarray:
    """Positive numbers, rising, without those that differ from the one before by less than `TOLERANCE`."""
    rising = np.sort(np.fromiter(values, np.float64))
    return rising[np.diff(rising, prepend=0) > TOLERANCE * rising]


def _check(frame: pl.DataFrame, where: str) -> None:
    unknown = frame["Metadata_control"].drop_nulls().unique().to_list()
    wrong = sorted(set(unknown) - set(CONTROLS))
    if wrong:
        raise ValueError(f"{where}: control {wrong[0]!r}; known: {', '.join(CONTROLS)}")
    twice = frame.filter(pl.col("Metadata_id").is_duplicated())["Metadata_id"].unique(maintain_order=True)
    if len(twice):
        raise ValueError(f"{where}: {len(twice)} fields occur twice: {listing(twice.to_list())}")


def exists(paths: Iterable[str | os.PathLike]) -> list[str]:
    """Those of some paths that are not there; each folder is listed once."""
    folders: dict[str, set[str]] = {}
    missing = []
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in folders:
            folders[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        if name not in folders[folder]:
            missing.append(str(path))
    return missing
