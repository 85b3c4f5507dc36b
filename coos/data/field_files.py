"""Images of fields of view on disk: one `.npz` per view, or one TIFF per view and channel with a load-data table.

    files = field_files.find("release", index, channels=("Mito", "Hoechst"))
    files.check()                    # every file is there
    image = files.read(0)            # (H, W, C) of view 0

`.npz`: `views/<SAMPLE_KEY>.npz` with one array `sample` (H, W, C), its channels in the order of `channels`.
TIFF: `load_data.csv` as CellProfiler reads it: Metadata_Plate, Metadata_Well, Metadata_Site, and for every channel
FileName_<channel> and, optionally, PathName_<channel> (absolute, or relative to the folder); the channel may be
called "Orig<channel>".
"""

import dataclasses
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from coos.data import identity, image_tree
from coos.data.sample_index import PLACE, SampleIndex, site_name, well_name
from coos.profiles import delimited
from coos.profiles.table import listing

ARRAY = "sample"
DTYPES = ("uint8", "uint16", "float32")


@dataclasses.dataclass(frozen=True)
class FieldFiles:
    """The files of N views: `paths[view]` is one `.npz`, or a TIFF per channel. `layout` is "npz" or "tiff".

    `shape` (H, W, C) and `dtype` are those of the first view, which all others must have.
    """

    layout: str
    channels: tuple[str, ...]
    paths: tuple[tuple[str, ...], ...]
    shape: tuple[int, int, int]
    dtype: np.dtype

    def read(self, view: int) -> np.ndarray:
        """The image (H, W, C) of a view.

        Raises:
            ValueError: a file cannot be read, or has another size or dtype than the first view; it is named.
        """
        image = _read(self.paths[view])
        where = self.paths[view][0]
        if image.shape != self.shape:
            raise ValueError(f"{where}: the view is {image.shape}; the first one is {self.shape}")
        if image.dtype != self.dtype:
            raise ValueError(f"{where}: the view is {image.dtype}; the first one is {self.dtype}")
        return image

    def check(self) -> str:
        """See that every file is there; returns a digest of their names, sizes and times.

        Raises:
            ValueError: files are missing; up to five are named.
        """
        try:
            return self.digest(range(len(self.paths)))
        except FileNotFoundError as error:
            every = [path for paths in self.paths for path in paths]
            missing = [path for path in every if not os.path.isfile(path)]
            raise ValueError(
                f"{len(missing)} of {len(every)} image files are missing: {listing(missing, 5)}"
            ) from error

    def digest(self, views: Iterable[int]) -> str:
        """Digest of the names, sizes and times of the files of some views."""
        return identity.files_digest(pathlib.Path(path) for view in views for path in self.paths[view])


def find(source: str | os.PathLike, index: SampleIndex, *, channels: Sequence[str]) -> FieldFiles:
    """The image files of the views of an index; the folder `views` is taken if there is one, else `load_data.csv`.

    Raises:
        ValueError: neither is there, the table lacks a channel or a view, or the first view cannot be read.
    """
    source = pathlib.Path(source)
    paths: tuple[tuple[str, ...], ...]
    if (source / "views").is_dir():
        layout, paths = "npz", tuple((str(source / "views" / f"{key}.npz"),) for key in index.keys)
    elif (source / "load_data.csv").exists():
        layout, paths = "tiff", _paths_of_table(source, index, channels)
    else:
        raise ValueError(
            f"{source}: no images; expected views/<SAMPLE_KEY>.npz, or load_data.csv with TIFF files"
        )
    image = _read(paths[0])
    if image.shape[2] != len(channels):
        raise ValueError(
            f"{paths[0][0]}: has {image.shape[2]} channels; expected {len(channels)}: {', '.join(channels)}"
        )
    if image.dtype.name not in DTYPES:
        raise ValueError(f"{paths[0][0]}: dtype {image.dtype}; views are {', '.join(DTYPES)}")
    return FieldFiles(layout, tuple(channels), paths, image.shape, image.dtype)


def _paths_of_table(
    source: pathlib.Path, index: SampleIndex, channels: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """The TIFF files of every view of the index, in the order of `channels`."""
    table = source / "load_data.csv"
    frame = delimited.read_text_frame(table)
    missing = [name for name in PLACE if name not in frame.columns]
    if missing:
        raise ValueError(f"{table}: column {listing(missing)} missing; found {listing(frame.columns, 20)}")
    by_channel = [_files_of_channel(source, table, frame, channel) for channel in channels]
    places = zip(*(frame[name].fill_null("").to_list() for name in PLACE), strict=True)
    rows: dict[tuple[str, str, str], int] = {}
    for row, (plate, well, site) in enumerate(places):
        place = plate, well_name(well), site_name(site)
        if rows.setdefault(place, row) != row:
            raise ValueError(
                f"{table}, line {row + 2}: {'-'.join(place)} is on line {rows[place] + 2} already"
            )
    absent = [key for key, place in zip(index.keys, index.places(), strict=True) if place not in rows]
    if absent:
        raise ValueError(f"{table}: {len(absent)} views of the index have no row: {listing(absent, 5)}")
    return tuple(tuple(files[rows[place]] for files in by_channel) for place in index.places())


def _files_of_channel(
    source: pathlib.Path, table: pathlib.Path, frame: pl.DataFrame, channel: str
) -> list[str]:
    """The file of one channel in every row of the table."""
    suffixes = [name for name in (f"Orig{channel}", channel) if f"FileName_{name}" in frame.columns]
    if not suffixes:
        found = [name.removeprefix("FileName_") for name in frame.columns if name.startswith("FileName_")]
        raise ValueError(
            f"{table}: no column FileName_Orig{channel}; channels there are {listing(found, 20)}"
        )
    names = frame[f"FileName_{suffixes[0]}"].to_list()
    if None in names:
        raise ValueError(f"{table}, line {names.index(None) + 2}: FileName_{suffixes[0]} is empty")
    column = f"PathName_{suffixes[0]}"
    folders = frame[column].fill_null("").to_list() if column in frame.columns else [""] * len(names)
    return [os.path.join(source, folder, name) for folder, name in zip(folders, names, strict=True)]


def _read(paths: Sequence[str]) -> np.ndarray:
    """The image (H, W, C) in these files, in the byte order of this machine; floats must be finite."""
    image = _read_npz(paths[0]) if paths[0].endswith(".npz") else _read_planes(paths)
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        row, column, channel = np.argwhere(~np.isfinite(image))[0]
        where = paths[channel] if len(paths) > 1 else f"{paths[0]}, channel {channel}"
        raise ValueError(f"{where}: pixel ({row}, {column}) is {image[row, column, channel]}")
    return image.astype(image.dtype.newbyteorder("="), copy=False)


def _read_planes(paths: Sequence[str]) -> np.ndarray:
    planes = [image_tree.read_plane(pathlib.Path(path)) for path in paths]
    for path, plane in zip(paths, planes, strict=True):
        if plane.shape != planes[0].shape or plane.dtype != planes[0].dtype:
            raise ValueError(
                f"{path}: is {plane.dtype} {plane.shape}; {pathlib.Path(paths[0]).name} is {planes[0].dtype} "
                f"{planes[0].shape}"
            )
    return np.stack(planes, axis=-1)


def _read_npz(path: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            image = arrays[ARRAY]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError) as error:
        raise ValueError(f"{path}: cannot be read as .npz with an array {ARRAY!r} ({error})") from error
    if image.ndim != 3 or not image.size:
        raise ValueError(f"{path}: {ARRAY!r} is {image.shape}; expected (height, width, channels)")
    return image
